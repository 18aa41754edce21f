//! Connection strings, from Secrets Manager. They are fetched when a step begins and never leave the process.

use aws_sdk_secretsmanager::Client;
use backup_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::error::{code, told};
use crate::sdk::Sdk;

/// The connection string in the secret with this ARN or name.
pub async fn connection_string(sdk: &Sdk, secret: &str) -> Result<Zeroizing<String>> {
    let reply = Client::new(&sdk.config).get_secret_value().secret_id(secret).send().await;
    let attempted = format!("fetch the connection string from secret {secret}");
    let reply = reply.map_err(|why| match code(&why) {
        Some("ResourceNotFoundException") => Error::new(ErrorKind::Gone, &attempted)
            .because("there is no such secret")
            .hint("create the secret again, or deploy the template with the one there is"),
        _ => told(&attempted, why),
    })?;
    reply.secret_string.map(Zeroizing::new).ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("{attempted}: the secret is binary"))
            .hint("store it as text: one line, mongodb://… or mongodb+srv://…")
    })
}
