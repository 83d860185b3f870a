//! What a response code of RocketMQ means for us.

use rocketmq_protocol::RemotingCommand;
use rocketmq_protocol::code::response_code::ResponseCode;

use crate::Error;

/// `Ok` for success, else what the code says about trying again.
///
/// The rule for codes that we don't know: RocketMQ was reached and did not say that the message is at fault, so
/// a later retry may succeed.
pub(crate) fn check(response: &RemotingCommand, topic: &str) -> Result<(), Error> {
    let code = response.code();
    if code == ResponseCode::Success.to_i32() {
        return Ok(());
    }
    Err(error_of(
        code,
        response.remark().map_or("", |remark| remark.as_str()),
        topic,
    ))
}

pub(crate) fn error_of(code: i32, remark: &str, topic: &str) -> Error {
    let reason = || {
        if remark.is_empty() {
            format!("response code {code}")
        } else {
            first_line(remark)
        }
    };
    if let Some(what) = reservation(ResponseCode::from(code)) {
        return Error::Reserved {
            reason: what.to_owned(),
        };
    }
    match ResponseCode::from(code) {
        ResponseCode::SystemBusy | ResponseCode::FlowControl => Error::Busy { reason: reason() },
        ResponseCode::TopicNotExist => Error::TopicMissing {
            topic: topic.to_owned(),
        },
        // "request queueId[3] is illegal": the topic has fewer queues than our route says. The message is not at fault,
        // and the next look at the route helps.
        ResponseCode::InvalidParameter if remark.contains("queueId[") => Error::Unavailable {
            reason: format!("the route of {topic} is out of date: {}", reason()),
        },
        ResponseCode::MessageIllegal
        | ResponseCode::NoPermission
        | ResponseCode::VersionNotSupported
        | ResponseCode::RequestCodeNotSupported
        | ResponseCode::InvalidParameter
        | ResponseCode::IllegalOperation
        | ResponseCode::LmqQuotaExceeded => Error::Refused {
            code,
            reason: reason(),
        },
        _ => Error::Unavailable {
            reason: format!("{} (code {code})", reason()),
        },
    }
}

/// The codes with which a master says that it stored the messages, but not yet as safely as configured.
fn reservation(code: ResponseCode) -> Option<&'static str> {
    match code {
        ResponseCode::FlushDiskTimeout => Some("its disk was late (FLUSH_DISK_TIMEOUT)"),
        ResponseCode::FlushSlaveTimeout => Some("its slave was late (FLUSH_SLAVE_TIMEOUT)"),
        ResponseCode::SlaveNotAvailable => Some("its slave is away (SLAVE_NOT_AVAILABLE)"),
        _ => None,
    }
}

/// Remarks may carry a Java stack trace.
fn first_line(remark: &str) -> String {
    remark
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_whether_a_retry_can_help() {
        let is_for_good =
            |code, remark: &str| matches!(error_of(code, remark, "T"), Error::Refused { .. });
        for (code, expected) in [
            (1, false),
            (2, false),
            (14, false),
            (215, false),
            (501, false),
            (4711, false),
            (13, true),
            (16, true),
        ] {
            assert_eq!(is_for_good(code, ""), expected, "code {code}");
        }
        let illegal = ResponseCode::InvalidParameter.to_i32();
        assert!(is_for_good(illegal, "no such delay"));
        // As RocketMQ 5.5.0 writes it for a topic that has lost queues.
        let remark =
            "request queueId[3] is illegal, TopicConfig [topicName=T] Producer: /127.0.0.1:1";
        assert!(!is_for_good(illegal, remark));
        assert_eq!(
            error_of(17, "no", "T"),
            Error::TopicMissing {
                topic: "T".to_owned()
            }
        );
    }

    #[test]
    fn stored_with_reservations_is_told_from_stored_and_from_not_stored() {
        for code in [10, 11, 12] {
            assert!(
                matches!(error_of(code, "", "T"), Error::Reserved { .. }),
                "code {code}"
            );
        }
    }

    #[test]
    fn a_stack_trace_is_cut_to_its_first_line() {
        let error = error_of(13, "CODE: 13 too large\n\tat org.apache", "T");
        assert_eq!(
            error,
            Error::Refused {
                code: 13,
                reason: "CODE: 13 too large".to_owned()
            }
        );
    }
}
