//! Asking on a terminal. Whoever agrees types a word, so that nobody agrees by habit.

use std::io::{IsTerminal, Write, stderr, stdin};

use backup_core::{Error, ErrorKind, Result};

/// Asks for `word`. `Refused`, as what was `attempted`, if something else is typed, or if nobody can be asked.
pub(crate) fn ask(attempted: &str, question: &str, word: &str) -> Result<()> {
    let refused = |hint: &str| Err(Error::new(ErrorKind::Refused, attempted).hint(hint));
    if !stdin().is_terminal() {
        return refused("agree with --yes");
    }
    eprint!("{question}: ");
    let mut line = String::new();
    let read = stderr().flush().and_then(|()| stdin().read_line(&mut line));
    if read.is_ok() && line.trim_end() == word { Ok(()) } else { refused("nothing was done") }
}
