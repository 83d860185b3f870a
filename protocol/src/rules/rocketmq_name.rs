//! Names of RocketMQ topics, groups and properties, checked as RocketMQ 5.5.0 does (`TopicValidator`, the client's
//! `Validators`, `MessageConst`), so that a bad name is found when the configuration is read.

use super::RuleError;

/// Longest topic name.
pub const TOPIC_LEN_MAX: usize = 127;
/// Longest name of a retry or dead-letter topic.
pub const RETRY_TOPIC_LEN_MAX: usize = 255;
/// Longest group name.
pub const GROUP_LEN_MAX: usize = 120;

const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_TOPICS: &[&str] = &[
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];

/// Groups that RocketMQ keeps for itself or refuses from a client.
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
const SYSTEM_GROUPS: &[&str] = &[
    "DEFAULT_PRODUCER",
    "DEFAULT_CONSUMER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_P_GROUP",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
];

/// Property names that RocketMQ keeps for itself (`MessageConst.STRING_HASH_SET` and the transaction's).
const SYSTEM_PROPERTIES: &[&str] = &[
    "TRACE_ON",
    "MSG_REGION",
    "KEYS",
    "TAGS",
    "WAIT",
    "DELAY",
    "RETRY_TOPIC",
    "ORIGIN_GROUP",
    "REAL_TOPIC",
    "REAL_QID",
    "TRAN_MSG",
    "PGROUP",
    "MIN_OFFSET",
    "MAX_OFFSET",
    "BUYER_ID",
    "ORIGIN_MESSAGE_ID",
    "TRANSFER_FLAG",
    "CORRECTION_FLAG",
    "MQ2_FLAG",
    "RECONSUME_TIME",
    "UNIQ_KEY",
    "MAX_RECONSUME_TIMES",
    "CONSUME_START_TIME",
    "POP_CK",
    "POP_CK_OFFSET",
    "1ST_POP_TIME",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INSTANCE_ID",
    "CORRELATION_ID",
    "REPLY_TO_CLIENT",
    "TTL",
    "ARRIVE_TIME",
    "PUSH_REPLY_TIME",
    "CLUSTER",
    "MSG_TYPE",
    "INNER_NUM",
    "INNER_BASE",
    "INNER_MULTI_DISPATCH",
    "INNER_MULTI_QUEUE_OFFSET",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_DEQUEUE_MS",
    "TIMER_ROLL_TIMES",
    "TIMER_OUT_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DELAY_LEVEL",
    "BORN_TIMESTAMP",
    "DLQ_ORIGIN_TOPIC",
    "DLQ_ORIGIN_MESSAGE_ID",
    "_SYS_MSG_PRIORITY_",
    "TRACE_CONTEXT",
    "REDIRECT",
    "PROPERTY_FORWARD_QUEUE_ID",
    "TRANSACTION_CHECK_TIMES",
    "CHECK_IMMUNITY_TIME_IN_SECONDS",
];

const CHARACTERS: &str = "letters, digits, and % | _ -";

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-')
}

fn check_characters(kind: &str, name: &str) -> Result<(), RuleError> {
    if name.is_empty() {
        return Err(RuleError::new(
            format!("the RocketMQ {kind} is empty"),
            CHARACTERS,
        ));
    }
    match name.chars().find(|c| !is_name_char(*c)) {
        Some(c) => Err(RuleError::new(
            format!("RocketMQ {kind} \"{name}\" has the character {c:?}"),
            CHARACTERS,
        )),
        None => Ok(()),
    }
}

/// Checks a topic name.
///
/// # Errors
/// When RocketMQ would refuse it, or keeps it for itself.
pub fn validate_topic(topic: &str) -> Result<(), RuleError> {
    check_characters("topic", topic)?;
    let retry = topic.starts_with("%RETRY%") || topic.starts_with("%DLQ%");
    let max = if retry {
        RETRY_TOPIC_LEN_MAX
    } else {
        TOPIC_LEN_MAX
    };
    if topic.len() > max {
        let problem = format!("RocketMQ topic \"{topic}\" has {} characters", topic.len());
        return Err(RuleError::new(problem, format!("{max} at most")));
    }
    if SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX) {
        return Err(RuleError::new(
            format!("RocketMQ keeps the topic \"{topic}\" for itself"),
            "a topic that is not a system topic",
        ));
    }
    Ok(())
}

/// Checks the part of a topic name that stands between variables.
pub(super) fn validate_topic_part(part: &str) -> Result<(), RuleError> {
    check_characters("topic", part)?;
    if part.len() > TOPIC_LEN_MAX {
        return Err(RuleError::new(
            format!("RocketMQ topic \"{part}…\" is too long"),
            format!("{TOPIC_LEN_MAX} characters at most"),
        ));
    }
    Ok(())
}

/// Checks the name of a consumer or producer group.
///
/// # Errors
/// When RocketMQ would refuse it, or keeps it for itself.
pub fn validate_group(group: &str) -> Result<(), RuleError> {
    check_characters("group", group)?;
    if group.len() > GROUP_LEN_MAX {
        let problem = format!("RocketMQ group \"{group}\" has {} characters", group.len());
        return Err(RuleError::new(problem, format!("{GROUP_LEN_MAX} at most")));
    }
    if SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX) {
        return Err(RuleError::new(
            format!("RocketMQ keeps the group \"{group}\" for itself"),
            "a group of your own",
        ));
    }
    Ok(())
}

/// Checks the name of a user property that a rule sets.
///
/// # Errors
/// When RocketMQ keeps it for itself, this bridge does (`mqtt…`), or it has a character that is no good in a name.
pub fn validate_property(name: &str) -> Result<(), RuleError> {
    let allowed =
        "letters, digits, and . _ - in a name that neither RocketMQ nor this bridge (mqtt…) uses";
    if name.is_empty() {
        return Err(RuleError::new("prop. has no name", allowed));
    }
    if let Some(c) = name
        .chars()
        .find(|c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(RuleError::new(
            format!("property name \"{name}\" has the character {c:?}"),
            allowed,
        ));
    }
    let reserved =
        SYSTEM_PROPERTIES.contains(&name) || name.starts_with("__") || name.starts_with("mqtt");
    if reserved {
        return Err(RuleError::new(
            format!("property name \"{name}\" is taken"),
            allowed,
        ));
    }
    Ok(())
}
