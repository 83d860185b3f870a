//! Messages that only some of their subscribers get.

use handoff::Writer;
use protocol::message::{
    Audience, ClientIdBuffer, Command, DownlinkFrame, Message, QoS, Selected, What,
};

use super::{Events, KEEP, node};
use crate::client::{Client, Login};
use crate::support::{until, versions};

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    Message {
        topic,
        payload,
        qos: QoS::AtLeastOnce,
        received_at_ms: u64::MAX,
        ..Message::default()
    }
}

fn append(writer: &mut Writer, message: &Message<'_>) {
    writer
        .append_with(message.encoded_len(), |frame| message.encode_into(frame))
        .expect("room");
}

fn append_for(writer: &mut Writer, audience: Audience<'_>, message: Message<'_>) {
    let selected = Selected { audience, message };
    writer
        .append_with(selected.encoded_len(), |frame| selected.encode_into(frame))
        .expect("room");
}

fn ids(clients: &[&str]) -> ClientIdBuffer {
    let mut ids = ClientIdBuffer::default();
    for client in clients {
        ids.push(client).expect("short");
    }
    ids
}

/// Injects a last message for all, and gives what the client got before it.
fn got(client: &mut Client) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let (message, _) = client.message();
        if message.ends_with(" last") {
            return got;
        }
        got.push(message);
    }
}

#[test]
fn those_who_are_meant_get_it_by_their_subscription_and_as_far_as_they_may_read() {
    for version in versions() {
        let mut setup = node(&version);
        let acl = setup.write(
            "acl",
            "topic read chat/open\ntopic read chat/end\ntopic write #\n",
        );
        setup.after(&format!("acl_file {}", acl.display()));
        let broker = setup.start();
        let mut one = Client::connect(&broker, "one", Login::default());
        let mut two = Client::connect(&broker, "two", Login::default());
        one.subscribe("chat/#");
        two.subscribe("chat/#");
        let mut writer = broker.downlink();
        let (first, both) = (ids(&["one", "nobody"]), ids(&["one", "two"]));
        append(&mut writer, &message("chat/open", b"for all"));
        append_for(
            &mut writer,
            Audience::Clients(first.as_ids()),
            message("chat/open", b"for one"),
        );
        append_for(
            &mut writer,
            Audience::Clients(first.as_ids()),
            message("chat/secret", b"for one"),
        );
        append_for(
            &mut writer,
            Audience::Clients(first.as_ids()),
            message("chat/open", b""),
        );
        append_for(
            &mut writer,
            Audience::Clients(both.as_ids()),
            message("chat/open", b"for one"),
        );
        append(&mut writer, &message("chat/end", b"last"));
        assert_eq!(
            got(&mut one),
            [
                "chat/open for all",
                "chat/open for one",
                "chat/open ",
                "chat/open for one"
            ],
            "{version:?}"
        );
        assert_eq!(
            got(&mut two),
            ["chat/open for all", "chat/open for one"],
            "{version:?}"
        );
    }
}

#[test]
fn a_member_gets_what_is_for_its_group_and_nothing_that_is_for_all() {
    for version in versions() {
        let broker = node(&version).start();
        let mut one = Client::connect(&broker, "one", Login::default());
        let mut two = Client::connect(&broker, "two", Login::default());
        let mut other = Client::connect(&broker, "other", Login::default());
        let mut device = Client::connect(&broker, "device", Login::default());
        for member in [&mut one, &mut two] {
            member.subscribe("$share/g/chat/+");
            member.subscribe("end/#");
        }
        other.subscribe("chat/+");
        other.subscribe("end/#");
        device
            .publish("chat/a", b"published here", 1)
            .expect("acknowledged");
        let mut writer = broker.downlink();
        append(&mut writer, &message("chat/a", b"for all"));
        let group = Audience::Group("g/chat/+");
        let payloads: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        for payload in &payloads {
            append_for(&mut writer, group, message("chat/a", payload.as_bytes()));
        }
        append(&mut writer, &message("end/x", b"last"));
        let (first, second) = (got(&mut one), got(&mut two));
        assert_eq!(
            (first.len(), second.len()),
            (5, 5),
            "{version:?}: {first:?} {second:?}"
        );
        let mut all: Vec<String> = first.into_iter().chain(second).collect();
        all.sort();
        let expected: Vec<String> = payloads
            .iter()
            .map(|text| format!("chat/a {text}"))
            .collect();
        assert_eq!(all, expected, "{version:?}");
        assert_eq!(
            got(&mut other),
            ["chat/a published here", "chat/a for all"],
            "{version:?}"
        );
        // What the cluster does not share is Mosquitto's.
        one.subscribe("$share/g/free/+");
        device.publish("free/a", b"local", 1).expect("acknowledged");
        assert_eq!(one.message().0, "free/a local", "{version:?}");
    }
}

#[test]
fn what_is_for_a_group_without_members_comes_back() {
    for version in versions() {
        let broker = node(&version).start();
        let mut member = Client::connect(&broker, "member", Login::default());
        member.subscribe("$share/g/chat/+");
        member.unsubscribe("$share/g/chat/+");
        let mut uplink = broker.uplink();
        let mut writer = broker.downlink();
        let epoch = writer.epoch();
        append_for(
            &mut writer,
            Audience::Group("g/chat/+"),
            message("chat/a", b"x"),
        );
        let (reason, frame) = uplink.returned(epoch);
        assert!(reason.contains("no member"), "{reason}");
        let Ok(DownlinkFrame::Selected(selected)) = DownlinkFrame::decode(&frame) else {
            panic!("as it was")
        };
        assert_eq!(selected.audience, Audience::Group("g/chat/+"));
    }
}

fn moved(writer: &mut Writer, client_id: &str, login: u64) {
    let command = Command::Moved {
        client_id,
        login,
        at_ms: 1,
    };
    let mut frame = vec![0; command.encoded_len()];
    command.encode_into(&mut frame);
    writer.append(&frame).expect("room");
}

#[test]
fn a_session_whose_client_is_elsewhere_gets_nothing_until_it_is_back() {
    for version in versions() {
        let broker = node(&version).start();
        let mut events = Events::of(&broker);
        let mut device = Client::connect(&broker, "device", KEEP);
        device.subscribe("chat/#");
        device.subscribe("free/#");
        until("it is online", || {
            events
                .next()
                .starts_with("subscribed device free")
                .then_some(())
        });
        device.disconnect();
        until("it is gone", || {
            events.next().starts_with("offline").then_some(())
        });
        let mut writer = broker.downlink();
        moved(&mut writer, "device", events.login);
        append(&mut writer, &message("chat/a", b"elsewhere"));
        append(&mut writer, &message("free/a", b"not shared"));
        until("both are injected", || {
            (broker.counter(protocol::counters::DOWNLINK_INJECTED) == 2).then_some(())
        });
        let mut device = Client::connect(&broker, "device", KEEP);
        assert_eq!(device.message().0, "free/a not shared", "{version:?}");
        until("it is told that it is back", || {
            let frame = events.reader.poll().expect("a good log")?;
            let event = protocol::message::Event::decode(frame.payload).expect("an event");
            let What::Resumed {
                client_id,
                downlink_position,
                ..
            } = event.what
            else {
                return None;
            };
            assert_eq!((client_id, downlink_position), ("device", writer.end()));
            Some(())
        });
        // What was said of its login before is no more true.
        let before = events.login;
        moved(&mut writer, "device", before);
        append(&mut writer, &message("chat/a", b"back"));
        assert_eq!(device.message().0, "chat/a back", "{version:?}");
    }
}
