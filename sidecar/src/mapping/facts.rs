//! What the properties of a RocketMQ message say, sorted by meaning, in either layout.

use std::borrow::Cow;

use protocol::config::Layout;

use super::escape::unescape;
use super::names;

/// The properties of one message by their meaning. Values are as they came, escapes undone; nothing is judged yet.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) topic: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) qos: Option<Cow<'a, str>>,
    pub(super) retain: Option<Cow<'a, str>>,
    pub(super) expiry: Option<Cow<'a, str>>,
    pub(super) received_at: Option<Cow<'a, str>>,
    pub(super) empty: Option<Cow<'a, str>>,
    pub(super) content_type: Option<Cow<'a, str>>,
    pub(super) response_topic: Option<Cow<'a, str>>,
    pub(super) correlation_data: Option<Cow<'a, str>>,
    pub(super) payload_format: Option<Cow<'a, str>>,
    /// The JSON array of all user properties, in our form.
    pub(super) user_array: Option<&'a str>,
    /// The same in Alibaba's form.
    pub(super) user_array_apsara: Option<&'a str>,
    /// `mqtt_user_…` properties.
    pub(super) user_single: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Properties with a name that means nothing to us.
    pub(super) plain: Vec<(&'a str, &'a str)>,
    /// The one client to deliver to.
    pub(super) target: Option<Cow<'a, str>>,
    /// Apsara: the topic that the receiver shall see.
    pub(super) real_topic: Option<&'a str>,
}

impl<'a> Facts<'a> {
    pub(super) fn read(properties: &'a [(String, String)], layout: Layout) -> Facts<'a> {
        let mut facts = Facts::default();
        let mut theirs = Facts::default();
        for (name, value) in properties {
            let known = facts.read_ours(name, value)
                || (layout == Layout::Apsara && theirs.read_apsara(name, value));
            if !known {
                facts.plain.push((name, value));
            }
        }
        facts.fill_from(theirs);
        facts
    }

    /// False for a name that is none of ours.
    fn read_ours(&mut self, name: &'a str, value: &'a str) -> bool {
        let slot = match name {
            names::TOPIC => &mut self.topic,
            names::ID => &mut self.id,
            names::QOS => &mut self.qos,
            names::RETAIN => &mut self.retain,
            names::EXPIRY => &mut self.expiry,
            names::RECEIVED_AT => &mut self.received_at,
            names::EMPTY => &mut self.empty,
            names::CONTENT_TYPE => &mut self.content_type,
            names::RESPONSE_TOPIC => &mut self.response_topic,
            names::CORRELATION_DATA => &mut self.correlation_data,
            names::PAYLOAD_FORMAT => &mut self.payload_format,
            names::TARGET_CLIENT => &mut self.target,
            names::USER_PROPERTIES => {
                self.user_array = Some(value);
                return true;
            }
            _ => {
                if let Some(key) = name.strip_prefix(names::USER_PREFIX) {
                    self.user_single.push((unescape(key), unescape(value)));
                    return true;
                }
                return names::BOOKKEEPING.contains(&name);
            }
        };
        *slot = Some(unescape(value));
        true
    }

    fn read_apsara(&mut self, name: &'a str, value: &'a str) -> bool {
        use names::apsara as theirs;
        match name {
            theirs::SECOND_TOPIC => self.target = super::apsara::target(value).map(Cow::from),
            theirs::REAL_TOPIC => self.real_topic = Some(value),
            theirs::TOPIC | theirs::ORIGIN_TOPIC => self.topic = Some(unescape(value)),
            theirs::QOS | theirs::QOS_ALT => self.qos = Some(value.into()),
            theirs::EMPTY => self.empty = Some(value.into()),
            theirs::EXPIRY => self.expiry = Some(value.into()),
            theirs::CONTENT_TYPE => self.content_type = Some(unescape(value)),
            theirs::USER_PROPERTIES => self.user_array_apsara = Some(value),
            _ => return theirs::BOOKKEEPING.contains(&name),
        }
        true
    }

    /// Takes from the other layout what ours does not say.
    fn fill_from(&mut self, theirs: Facts<'a>) {
        self.topic = self.topic.take().or(theirs.topic);
        self.qos = self.qos.take().or(theirs.qos);
        self.empty = self.empty.take().or(theirs.empty);
        self.expiry = self.expiry.take().or(theirs.expiry);
        self.content_type = self.content_type.take().or(theirs.content_type);
        self.target = self.target.take().or(theirs.target);
        self.real_topic = theirs.real_topic;
        self.user_array_apsara = theirs.user_array_apsara;
    }
}
