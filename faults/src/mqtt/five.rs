//! MQTT 5, by rumqttc's packets.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Filter, Packet as Five, PubAck, PubAckReason,
    PubRec, PubRecReason, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, qos as qos_of};

use super::{KEEP_ALIVE_S, PACKET_BYTES_MAX, Packet, SESSION_EXPIRY_S};

type Written = Result<(), String>;

fn write(packet: &Five, output: &mut BytesMut) -> Written {
    packet
        .write(output, Some(PACKET_BYTES_MAX))
        .map(|_| ())
        .map_err(|problem| problem.to_string())
}

pub(super) fn connect(id: &str, clean: bool, output: &mut BytesMut) -> Written {
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
    let connect = Connect {
        keep_alive: KEEP_ALIVE_S,
        client_id: id.to_owned(),
        clean_start: clean,
        properties: Some(properties),
    };
    write(&Five::Connect(connect, None, None), output)
}

pub(super) fn publish(
    topic: &str,
    payload: &str,
    qos: u8,
    packet: u16,
    again: bool,
    output: &mut BytesMut,
) -> Written {
    let qos = qos_of(qos).ok_or("a QoS is 0, 1 or 2")?;
    let mut publish = Publish::new(topic, qos, payload.to_owned(), None);
    publish.pkid = packet;
    publish.dup = again;
    write(&Five::Publish(publish), output)
}

pub(super) fn subscribe(filter: &str, qos: u8, output: &mut BytesMut) -> Written {
    let qos = qos_of(qos).ok_or("a QoS is 0, 1 or 2")?;
    let mut subscribe = Subscribe::new(Filter::new(filter, qos), None);
    subscribe.pkid = 1;
    write(&Five::Subscribe(subscribe), output)
}

pub(super) fn parse(input: &mut BytesMut) -> Result<Option<Packet>, String> {
    let packet = match Five::read(input, Some(PACKET_BYTES_MAX)) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(problem) => return Err(problem.to_string()),
    };
    Ok(Some(heard!(packet, Five, puback, pubrec)))
}

fn puback(ack: &PubAck) -> Option<String> {
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        reason => Some(format!("{reason:?}")),
    }
}

fn pubrec(ack: &PubRec) -> Option<String> {
    match ack.reason {
        PubRecReason::Success | PubRecReason::NoMatchingSubscribers => None,
        reason => Some(format!("{reason:?}")),
    }
}
