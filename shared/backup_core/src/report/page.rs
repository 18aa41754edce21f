//! A page for people: a title, a sentence, and tables of two columns. It needs nothing but itself and runs no scripts.

/// What stands before the title's end.
const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem; text-align: left; vertical-align: top; }
th { font-weight: normal; width: 45%; }
td { overflow-wrap: anywhere; }
</style>
"#;

/// A page that is being written.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a title and one sentence.
    #[must_use]
    pub fn new(title: &str, lead: &str) -> Self {
        let title = escape(title);
        let body = format!("<h1>{title}</h1>\n<p>{}</p>\n", escape(lead));
        Self { title, body }
    }

    /// Adds a table of names and values under a heading.
    pub fn section(&mut self, heading: &str, rows: impl IntoIterator<Item = (String, String)>) {
        self.body += &format!("<h2>{}</h2>\n<table>\n", escape(heading));
        for (name, value) in rows {
            self.body +=
                &format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(&name), escape(&value));
        }
        self.body += "</table>\n";
    }

    /// The whole page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let Self { title, body } = self;
        format!("{HEAD}<title>{title}</title>\n</head>\n<body>\n{body}</body>\n</html>\n")
    }
}

/// Text as HTML shows it, between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let hostile = "</td><script>alert('x' + \"y\")</script>&amp;";
        let mut page = Page::new(hostile, hostile);
        page.section(hostile, [(hostile.to_owned(), hostile.to_owned())]);
        let html = page.to_html();
        assert!(!html.contains("<script"), "{html}");
        let escaped = "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39; + &quot;y&quot;)&lt;/script&gt;&amp;amp;";
        assert_eq!(html.matches(escaped).count(), 6);
    }
}
