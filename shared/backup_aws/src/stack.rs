//! The deployed stack, found by its name: everything else is in its outputs.

use std::collections::HashMap;

use aws_sdk_cloudformation::Client;
use backup_core::{Error, ErrorKind, Result};

use crate::error::told;
use crate::sdk::Sdk;

/// A deployed stack's outputs.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    outputs: HashMap<String, String>,
}

impl Stack {
    /// Looks the stack up.
    pub async fn find(sdk: &Sdk, name: &str) -> Result<Self> {
        let hint = format!("is {name:?} the stack's name, and {} its region?", sdk.region()?);
        let found = Client::new(&sdk.config).describe_stacks().stack_name(name).send().await;
        let found = found.map_err(|why| {
            // CloudFormation calls a stack that does not exist a validation error.
            let missing = crate::error::code(&why) == Some("ValidationError");
            let told = told(format!("find stack {name:?}"), why);
            if missing { Error::new(ErrorKind::NotFound, told.to_string()).hint(&hint) } else { told }
        })?;
        let stack = found
            .stacks()
            .first()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("find stack {name:?}")).hint(hint))?;
        let outputs = stack
            .outputs()
            .iter()
            .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())));
        Ok(Self { name: name.to_owned(), outputs: outputs.collect() })
    }

    /// One output.
    pub fn output(&self, key: &str) -> Result<&str> {
        self.outputs.get(key).map(String::as_str).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("find output {key} of stack {:?}", self.name))
                .hint("the stack was made by another version of the template, or is still being made")
        })
    }
}
