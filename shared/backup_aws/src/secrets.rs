//! Connection strings, from Secrets Manager. They are fetched when a step begins and never leave the process.

use aws_sdk_secretsmanager::Client;
use backup_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::error::told;
use crate::sdk::Sdk;

/// The connection string in the secret with this ARN or name.
pub async fn connection_string(sdk: &Sdk, secret: &str) -> Result<Zeroizing<String>> {
    let reply = Client::new(&sdk.config).get_secret_value().secret_id(secret).send().await;
    let reply = reply.map_err(|why| told("fetch the connection string", why))?;
    reply.secret_string.map(Zeroizing::new).ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "fetch the connection string: the secret is binary")
            .hint("store it as text: one line, mongodb://… or mongodb+srv://…")
    })
}
