//! The names of the RocketMQ properties. They are part of the interface: consumers and producers in other languages
//! spell them. `docs/mapping.md` lists them for users; keep the two together.

/// The MQTT topic that the device published on.
pub(crate) const TOPIC: &str = "mqtt_topic";
/// The client id of the device that published.
pub(crate) const CLIENT_ID: &str = "mqtt_client_id";
/// The user name it had logged in with.
pub(crate) const USERNAME: &str = "mqtt_username";
/// `0`, `1` or `2`.
pub(crate) const QOS: &str = "mqtt_qos";
/// `1` or `0`.
pub(crate) const RETAIN: &str = "mqtt_retain";
/// When Mosquitto received it, Unix milliseconds.
pub(crate) const RECEIVED_AT: &str = "mqtt_received_at";
/// `node:epoch:position`, unique for each message that a device published.
pub(crate) const ID: &str = "mqtt_id";
/// Names the layout of the sender's lanes, for whoever drops repetitions by order: within one queue, node, epoch and lane
/// positions only fall when something is repeated. Behind the name stands a seal (see `seal`).
pub(crate) const LANE: &str = "mqtt_lane";
/// `2` and so on for the further copies when several rules send one message to the same RocketMQ topic.
pub(crate) const COPY: &str = "mqtt_copy";
/// The dead letter that a message was replayed from, `<file>-<line>`: its identity has been seen before perhaps, and it goes through all the same.
pub(crate) const REPLAYED: &str = "mqtt_replayed";
/// Of a retained message in a cluster's topic: the time by which nodes judge which one is the newest, Unix milliseconds.
pub(crate) const RETAINED_AT: &str = "mqtt_retained_at";
/// Of a retained message in a cluster's topic: `1` if a node has stored it once more, as it was.
pub(crate) const REFRESHED: &str = "mqtt_refreshed";
/// In a cluster's topic: the one group (a hash) that the message is for, which a node could not give to any member.
pub(crate) const SHARE: &str = "mqtt_share";
/// Beside it: that node.
pub(crate) const SHARE_FROM: &str = "mqtt_share_from";
/// `3`, `4` (3.1.1) or `5`.
pub(crate) const VERSION: &str = "mqtt_version";
/// `1` for a will.
pub(crate) const WILL: &str = "mqtt_will";
/// `1` when the payload was empty: RocketMQ refuses an empty body, so there is one byte 0x00 in it.
pub(crate) const EMPTY: &str = "mqtt_empty";
/// MQTT 5: content type.
pub(crate) const CONTENT_TYPE: &str = "mqtt_content_type";
/// MQTT 5: response topic.
pub(crate) const RESPONSE_TOPIC: &str = "mqtt_response_topic";
/// MQTT 5: correlation data in base64.
pub(crate) const CORRELATION_DATA: &str = "mqtt_correlation_data";
/// MQTT 5: message expiry interval in seconds.
pub(crate) const EXPIRY: &str = "mqtt_expiry";
/// MQTT 5: `1` for UTF-8 text, `0` for bytes.
pub(crate) const PAYLOAD_FORMAT: &str = "mqtt_payload_format";
/// MQTT 5: all user properties as a JSON array of `[key, value]`, where single properties can't say it exactly.
pub(crate) const USER_PROPERTIES: &str = "mqtt_user_properties";
/// MQTT 5: prefix of a single user property.
pub(crate) const USER_PREFIX: &str = "mqtt_user_";
/// In a cluster's inbox: what is kept for this client up to this offset was given to it.
pub(crate) const TAKEN: &str = "mqtt_taken";
/// Downlink: deliver to this client alone.
pub(crate) const TARGET_CLIENT: &str = "client_id";

/// Properties that are about the publishing and stay off the way down: a subscriber doesn't get them as user properties.
pub(crate) const BOOKKEEPING: &[&str] = &[
    TOPIC,
    CLIENT_ID,
    USERNAME,
    QOS,
    RETAIN,
    RECEIVED_AT,
    ID,
    LANE,
    COPY,
    REPLAYED,
    RETAINED_AT,
    REFRESHED,
    SHARE,
    SHARE_FROM,
    VERSION,
    WILL,
    EMPTY,
    EXPIRY,
];

/// Names of Alibaba's MQTT service and of Apache rocketmq-mqtt. Where the two differ, both are written and both are read.
pub(crate) mod apsara {
    /// Alibaba: the levels behind the first, with a leading `/`. Down: `/p2p/<client id>` addresses one client.
    pub(crate) const SECOND_TOPIC: &str = "mqttSecondTopic";
    /// Both, down only: the topic that the receiver shall see.
    pub(crate) const REAL_TOPIC: &str = "mqttRealTopic";
    /// Alibaba: the whole MQTT topic.
    pub(crate) const TOPIC: &str = "topic";
    /// rocketmq-mqtt: the whole MQTT topic.
    pub(crate) const ORIGIN_TOPIC: &str = "originMqttTopic";
    /// Both: who published.
    pub(crate) const CLIENT_ID: &str = "clientId";
    /// Alibaba: QoS.
    pub(crate) const QOS: &str = "qoslevel";
    /// rocketmq-mqtt: QoS.
    pub(crate) const QOS_ALT: &str = "qosLevel";
    /// rocketmq-mqtt: `true` when the payload was empty.
    pub(crate) const EMPTY: &str = "IS_EMPTY_MSG";
    /// Alibaba, MQTT 5: `[{"key":…,"value":…}]`.
    pub(crate) const USER_PROPERTIES: &str = "mqtt5UserProperty";
    /// Alibaba, MQTT 5: message expiry interval in seconds.
    pub(crate) const EXPIRY: &str = "mqtt5MsgExpireInterval";
    /// Alibaba, MQTT 5: content type.
    pub(crate) const CONTENT_TYPE: &str = "mqtt5ContentType";
    /// What else they put on a message, and what a subscriber has no use for.
    pub(crate) const BOOKKEEPING: &[&str] = &[
        SECOND_TOPIC,
        REAL_TOPIC,
        TOPIC,
        ORIGIN_TOPIC,
        CLIENT_ID,
        QOS,
        QOS_ALT,
        EMPTY,
        USER_PROPERTIES,
        EXPIRY,
        CONTENT_TYPE,
        "cleansessionflag",
        "cleanSessionFlag",
        "retryTimes",
        "extData",
        "namespace",
    ];
    /// rocketmq-mqtt: the tag of every message; its consumers subscribe to it.
    pub(crate) const TAG: &str = "MQTT_COMMON";
    /// The second topic of a message for one client.
    pub(crate) const P2P: &str = "/p2p/";
}
