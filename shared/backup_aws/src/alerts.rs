//! Alerts, over SNS: one topic that wakes people (email and SMS), one that informs (email).
//!
//! An SMS may have 1,600 characters and costs by its parts: it is the subject alone.

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::error::BuildError;
use aws_sdk_sns::types::MessageAttributeValue;
use backup_core::Result;
use backup_core::alert::{Alert, Severity};
use backup_core::ports::Alerts;

use crate::error::told;
use crate::sdk::Sdk;

/// The two topics.
#[derive(Clone, Debug)]
pub struct SnsAlerts {
    client: Client,
    page_topic: String,
    mail_topic: String,
}

impl SnsAlerts {
    /// Topics by their ARNs: `page` for critical and high, `mail` for everything less.
    #[must_use]
    pub fn new(sdk: &Sdk, page_topic: String, mail_topic: String) -> Self {
        Self { client: Client::new(&sdk.config), page_topic, mail_topic }
    }
}

#[async_trait]
impl Alerts for SnsAlerts {
    async fn publish(&self, alert: &Alert) -> Result<()> {
        let (topic, severity) = match alert.severity {
            Severity::Info => (&self.mail_topic, "info"),
            Severity::Warning => (&self.mail_topic, "warning"),
            Severity::High => (&self.page_topic, "high"),
            Severity::Critical => (&self.page_topic, "critical"),
        };
        let messages = serde_json::json!({ "default": alert.body, "sms": alert.subject }).to_string();
        let mut request = self.client.publish().topic_arn(topic).subject(&alert.subject);
        request = request.message(messages).message_structure("json");
        if let Ok(kind) = attribute("Transactional") {
            request = request.message_attributes("AWS.SNS.SMS.SMSType", kind);
        }
        if let Ok(value) = attribute(severity) {
            request = request.message_attributes("severity", value);
        }
        request.send().await.map(|_| ()).map_err(|why| told("publish an alert", why))
    }
}

fn attribute(value: &str) -> std::result::Result<MessageAttributeValue, BuildError> {
    MessageAttributeValue::builder().data_type("String").string_value(value).build()
}
