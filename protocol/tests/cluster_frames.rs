//! The frames of a cluster: events on the way up, commands on the way down.

use proptest::prelude::*;
use proptest::sample::Index;
use protocol::message::{Command, DownlinkFrame, Event, Message, What};

fn encode(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = vec![0xAA; event.encoded_len()];
    event.encode_into(&mut bytes);
    bytes
}

fn encode_command(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = vec![0xAA; command.encoded_len()];
    command.encode_into(&mut bytes);
    bytes
}

/// Each event, of the same values.
fn events<'a>(
    client_id: &'a str,
    text: &'a str,
    number: u64,
    byte: u8,
    flag: bool,
) -> Vec<Event<'a>> {
    let kinds = [
        What::Started {
            saved_at_ms: number,
            ran_until_ms: number ^ 3,
        },
        What::Online {
            client_id,
            username: flag.then_some(text),
            login: number,
            mqtt_version: byte,
            clean: !flag,
        },
        What::Offline {
            client_id,
            login: number,
            cause: byte,
            session_stays: flag,
        },
        What::Subscribed {
            client_id,
            filter: text,
            qos: byte,
            downlink_position: number,
            uplink_position: number ^ 1,
        },
        What::Unsubscribed {
            client_id,
            filter: text,
        },
        What::Restored {
            client_id,
            filter: text,
            qos: byte,
        },
        What::Deaf { why: text },
        What::Resumed {
            client_id,
            downlink_position: number,
            uplink_position: number ^ 1,
        },
    ];
    let at_ms = number.wrapping_add(7);
    kinds.map(|what| Event { at_ms, what }).to_vec()
}

proptest! {
    #[test]
    fn events_survive_encoding_and_are_never_taken_for_messages(
        client_id: String, text: String, number: u64, byte: u8, flag: bool,
    ) {
        for event in events(&client_id, &text, number, byte, flag) {
            let bytes = encode(&event);
            prop_assert_eq!(Event::decode(&bytes), Ok(event));
            prop_assert!(Message::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_changed_event_is_an_event_or_a_clean_error(
        which in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let events = events("client", "a/+/b", 5, 1, true);
        let mut bytes = encode(which.get(&events));
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(event) = Event::decode(&bytes) {
            prop_assert_eq!(encode(&event), bytes);
        }
    }

    #[test]
    fn commands_survive_encoding_and_any_bytes_are_a_frame_or_a_clean_error(
        client_id: String, login: u64, reason: u8, at_ms: u64,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let client_id = &client_id;
        let command = match reason % 3 {
            0 => Command::Close { client_id, login, reason, at_ms },
            1 => Command::Carrier { client_id, is_carrier: reason % 2 == 0, at_ms },
            _ => Command::Moved { client_id, login, at_ms },
        };
        let mut bytes = encode_command(&command);
        prop_assert_eq!(DownlinkFrame::decode(&bytes), Ok(DownlinkFrame::Command(command)));
        prop_assert!(Message::decode(&bytes).is_err());
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(DownlinkFrame::Command(command)) = DownlinkFrame::decode(&bytes) {
            prop_assert_eq!(encode_command(&command), bytes);
        }
    }
}

#[test]
fn a_message_is_a_message_on_the_way_down() {
    let message = Message {
        topic: "a/b",
        payload: b"x",
        ..Message::default()
    };
    let mut bytes = vec![0; message.encoded_len()];
    message.encode_into(&mut bytes);
    assert_eq!(
        DownlinkFrame::decode(&bytes),
        Ok(DownlinkFrame::Message(message))
    );
}
