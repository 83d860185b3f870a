//! MQTT 3.1.1, by rumqttc's packets.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet as Four, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, qos as qos_of};

use super::{KEEP_ALIVE_S, PACKET_BYTES_MAX, Packet};

type Written = Result<(), String>;

fn write(packet: &Four, output: &mut BytesMut) -> Written {
    packet
        .write(output, PACKET_BYTES_MAX as usize)
        .map(|_| ())
        .map_err(|problem| problem.to_string())
}

pub(super) fn connect(id: &str, clean: bool, output: &mut BytesMut) -> Written {
    let mut connect = Connect::new(id);
    connect.clean_session = clean;
    connect.keep_alive = KEEP_ALIVE_S;
    write(&Four::Connect(connect), output)
}

pub(super) fn publish(
    topic: &str,
    payload: &str,
    qos: u8,
    packet: u16,
    again: bool,
    output: &mut BytesMut,
) -> Written {
    let qos = qos_of(qos).map_err(|problem| problem.to_string())?;
    let mut publish = Publish::new(topic, qos, payload);
    publish.pkid = packet;
    publish.dup = again;
    write(&Four::Publish(publish), output)
}

pub(super) fn subscribe(filter: &str, qos: u8, output: &mut BytesMut) -> Written {
    let qos = qos_of(qos).map_err(|problem| problem.to_string())?;
    let mut subscribe = Subscribe::new(filter, qos);
    subscribe.pkid = 1;
    write(&Four::Subscribe(subscribe), output)
}

pub(super) fn parse(input: &mut BytesMut) -> Result<Option<Packet>, String> {
    let packet = match Four::read(input, PACKET_BYTES_MAX as usize) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(problem) => return Err(problem.to_string()),
    };
    Ok(Some(heard!(packet, Four, |_| None, |_| None)))
}
