//! What a test breaks of the deployed stack: one thing, and mended again before anything is asserted, so that a case
//! that fails leaves nothing broken for the next one.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_lambda::types::Environment;

use crate::fixture::Fixture;

/// The secret backups read with, as the local cloud names it.
pub(crate) const SOURCE_SECRET: &str = "nightsafe/source";
/// The secret restores write with.
pub(crate) const TARGET_SECRET: &str = "nightsafe/target";

/// One thing that is wrong.
pub(crate) enum Fault {
    /// Nothing of the stack: the request itself makes no sense.
    Nothing,
    /// A secret (its name) holds this text.
    Secret(&'static str, String),
    /// A variable of one step's function has another value: what it names does not exist.
    Variable(&'static str, &'static str, &'static str),
    /// The KMS key is disabled.
    KeyDisabled,
}

/// How it was before.
pub(crate) enum Undo {
    Nothing,
    Secret(&'static str, String),
    Variables(&'static str, HashMap<String, String>),
    EnableKey(String),
}

impl Fault {
    pub(crate) fn make(&self, fixture: &Fixture) -> Undo {
        let config = &fixture.config;
        match self {
            Self::Nothing => Undo::Nothing,
            Self::Secret(name, text) => {
                let before = fixture.run(secret(config, name));
                fixture.run(put_secret(config, name, text));
                Undo::Secret(name, before)
            }
            Self::Variable(step, name, value) => {
                let before = fixture.run(variables(config, step));
                let mut broken = before.clone();
                let known = broken.insert((*name).to_owned(), (*value).to_owned());
                assert!(known.is_some(), "{step} has no variable {name}");
                fixture.run(put_variables(config, step, broken));
                Undo::Variables(step, before)
            }
            Self::KeyDisabled => {
                let key = fixture.stack("Key");
                let kms = aws_sdk_kms::Client::new(config);
                fixture.run(async { kms.disable_key().key_id(&key).send().await }).unwrap();
                Undo::EnableKey(key)
            }
        }
    }
}

impl Undo {
    pub(crate) fn carry_out(self, fixture: &Fixture) {
        let config = &fixture.config;
        match self {
            Self::Nothing => {}
            Self::Secret(name, text) => fixture.run(put_secret(config, name, &text)),
            Self::Variables(step, variables) => fixture.run(put_variables(config, step, variables)),
            Self::EnableKey(key) => {
                let kms = aws_sdk_kms::Client::new(config);
                fixture.run(async { kms.enable_key().key_id(key).send().await }).unwrap();
            }
        }
    }
}

/// Stores another secret; gives its ARN.
pub(crate) async fn new_secret(config: &SdkConfig, name: &str, text: &str) -> String {
    let secrets = aws_sdk_secretsmanager::Client::new(config);
    let created = secrets.create_secret().name(name).secret_string(text).send().await;
    created.unwrap().arn.unwrap()
}

async fn secret(config: &SdkConfig, name: &str) -> String {
    let secrets = aws_sdk_secretsmanager::Client::new(config);
    secrets.get_secret_value().secret_id(name).send().await.unwrap().secret_string.unwrap()
}

async fn put_secret(config: &SdkConfig, name: &str, text: &str) {
    let secrets = aws_sdk_secretsmanager::Client::new(config);
    secrets.put_secret_value().secret_id(name).secret_string(text).send().await.unwrap();
}

async fn variables(config: &SdkConfig, step: &str) -> HashMap<String, String> {
    let functions = aws_sdk_lambda::Client::new(config);
    let name = format!("nightsafe-{step}");
    let found = functions.get_function_configuration().function_name(name).send().await.unwrap();
    found.environment().unwrap().variables().unwrap().clone()
}

async fn put_variables(config: &SdkConfig, step: &str, variables: HashMap<String, String>) {
    let functions = aws_sdk_lambda::Client::new(config);
    let environment = Environment::builder().set_variables(Some(variables)).build();
    let update = functions.update_function_configuration().function_name(format!("nightsafe-{step}"));
    update.environment(environment).send().await.unwrap();
}
