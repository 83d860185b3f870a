//! The grammar of rules: what is written reads back, and what is wrong is named.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::borrow::Cow;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protocol::message::QoS;
use protocol::rules::{
    Direction, DownlinkRule, Lookup, Missing, Tags, Template, UplinkRule, Variable, rocketmq_name,
};

struct Values(HashMap<Variable, String>);

impl Lookup for Values {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        self.0
            .get(variable)
            .map(|value| Cow::Borrowed(value.as_str()))
    }
}

fn render(
    template: &str,
    direction: Direction,
    values: &[(Variable, &str)],
) -> Result<String, Missing> {
    let values = values
        .iter()
        .map(|(variable, value)| (variable.clone(), (*value).to_owned()))
        .collect();
    let mut out = String::from(">");
    Template::parse(template, direction)
        .unwrap()
        .render(&Values(values), &mut out)?;
    Ok(out)
}

#[test]
fn an_uplink_rule_has_all_its_parts() {
    let rule = UplinkRule::parse(
        r#"sensors/+/telemetry  TELEMETRY tag=%2 key="%c %u" order=%t prop.site="a \"b\" \\""#,
    )
    .unwrap();
    assert_eq!(rule.filter, "sensors/+/telemetry");
    assert_eq!(rule.topic.as_literal(), Some("TELEMETRY"));
    assert_eq!(rule.tag.as_ref().unwrap().to_string(), "%2");
    assert_eq!(rule.key.as_ref().unwrap().to_string(), "%c %u");
    assert_eq!(rule.order.to_string(), "%t");
    assert_eq!(rule.properties[0].0, "site");
    assert_eq!(rule.properties[0].1.as_literal(), Some(r#"a "b" \"#));
    assert_eq!(
        rule.text,
        r#"sensors/+/telemetry TELEMETRY tag=%2 "key=%c %u" order=%t "prop.site=a \"b\" \\""#
    );
    assert_eq!(UplinkRule::parse(&rule.text).unwrap(), rule);
}

#[test]
fn the_default_order_is_the_client_and_is_not_written() {
    let rule = UplinkRule::parse("a/# T order=%c").unwrap();
    assert_eq!(rule, UplinkRule::parse("a/#\tT").unwrap());
    assert_eq!(rule.order, Template::variable(Variable::ClientId));
    assert_eq!(rule.text, "a/# T");
}

#[test]
fn a_downlink_rule_has_all_its_parts() {
    let rule = DownlinkRule::parse(
        "COMMANDS devices/%k/%g/%{site} tags=A || B|| C qos=1 retain=true expiry=5min client=%k",
    )
    .unwrap();
    assert_eq!(rule.topic, "COMMANDS");
    assert_eq!(rule.tags.as_ref().unwrap().as_str(), "A||B||C");
    assert_eq!(rule.qos, Some(QoS::AtLeastOnce));
    assert_eq!(rule.retain, Some(true));
    assert_eq!(rule.expiry_s, Some(300));
    assert_eq!(rule.client.as_ref().unwrap().to_string(), "%k");
    assert_eq!(
        rule.text,
        "COMMANDS devices/%k/%g/%{site} tags=A||B||C qos=1 retain=true expiry=300s client=%k"
    );
    assert_eq!(DownlinkRule::parse(&rule.text).unwrap(), rule);
    let all = DownlinkRule::parse("COMMANDS devices tags=*").unwrap();
    assert_eq!((all.tags, all.text.as_str()), (None, "COMMANDS devices"));
}

#[test]
fn tags_match_exactly_the_tags_named() {
    let tags = Tags::parse(" A||BC ").unwrap().unwrap();
    assert!(tags.matches(Some("A")) && tags.matches(Some("BC")));
    assert!(!tags.matches(Some("B")) && !tags.matches(Some("A||BC")) && !tags.matches(None));
}

#[test]
fn templates_are_filled_in() {
    use Variable::{ClientId, Key, Level, Property, Tag, Topic, Username};
    let up = [
        (ClientId, "dev"),
        (Username, "me"),
        (Topic, "a/b"),
        (Level(1), "a"),
        (Level(10), "ten"),
        (Property("unit".into()), "C"),
    ];
    let rendered = render(
        "%c-%u-%t-%1-%{10}-%{unit}-%10-100%%",
        Direction::Uplink,
        &up,
    )
    .unwrap();
    assert_eq!(rendered, ">dev-me-a/b-a-ten-C-a0-100%");
    let down = [(Key, "k"), (Tag, "g"), (Property("10".into()), "p")];
    assert_eq!(
        render("x/%k/%g/%{10}", Direction::Downlink, &down).unwrap(),
        ">x/k/g/p"
    );
    assert_eq!(
        render("x/%k/%g", Direction::Downlink, &down[..1]),
        Err(Missing(Tag))
    );
    let mut out = String::from("kept");
    let template = Template::parse("more %c", Direction::Uplink).unwrap();
    template
        .render(&Values(HashMap::new()), &mut out)
        .unwrap_err();
    assert_eq!(out, "kept");
}

fn uplink_error(rule: &str) -> String {
    UplinkRule::parse(rule).unwrap_err().to_string()
}

fn downlink_error(rule: &str) -> String {
    DownlinkRule::parse(rule).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_an_uplink_rule_is_named() {
    for (rule, part) in [
        ("", "lacks its filter or its RocketMQ topic"),
        ("a/b", "lacks its filter or its RocketMQ topic"),
        (
            "a/#/b T",
            "filter \"a/#/b\" has a # that is not the whole last level",
        ),
        ("$SYS/# T", "Mosquitto does not show plugins"),
        ("$share/g/a T", "is a shared subscription"),
        (
            "a bad.topic",
            "RocketMQ topic \"bad.topic\" has the character '.'",
        ),
        ("a T%c.x", "RocketMQ topic \".x\" has the character '.'"),
        ("a TBW102", "keeps the topic \"TBW102\" for itself"),
        ("a rmq_sys_x", "for itself"),
        ("a T tag=%k", "tag: unknown variable %k"),
        ("a T tag=%", "tag: ends with a single %"),
        ("a T key=%{x", "%{ without its }"),
        ("a T key=%{}", "%{} has no name"),
        ("a T key=", "key: is empty"),
        (
            "a/+ T key=%3",
            "%3 never has a value: topics of the filter have 2 levels (allowed: %1 to %2)",
        ),
        ("a/# T key=%{0}", "no topic has a level %{0}"),
        ("a T tag=a||b", "tag \"a||b\" has a | or *"),
        ("a T tag=a tag=b", "tag= is given twice"),
        ("a T prop.x=1 prop.x=2", "prop.x= is given twice"),
        ("a T prop.=1", "prop. has no name"),
        ("a T prop.TAGS=1", "property name \"TAGS\" is taken"),
        (
            "a T prop.mqtt_topic=1",
            "property name \"mqtt_topic\" is taken",
        ),
        ("a T qos=1", "unknown setting \"qos=1\""),
        (
            "a T what",
            "unknown setting \"what\" (allowed: <filter> <TOPIC>",
        ),
        ("a T tag=\"x", "a double quote is not closed"),
        ("a T tag=\"\\n\"", "followed by neither"),
        ("a T tag=\"\n\"", "a control character (0x0a)"),
    ] {
        let error = uplink_error(rule);
        assert!(error.contains(part), "{rule:?}: {error}");
    }
}

#[test]
fn what_is_wrong_with_a_downlink_rule_is_named() {
    for (rule, part) in [
        ("T", "lacks its RocketMQ topic or its MQTT topic"),
        ("a/b x", "RocketMQ topic \"a/b\" has the character '/'"),
        ("T a/+", "has a wildcard"),
        ("T a/%c", "unknown variable %c (allowed: %k key, %g tag"),
        ("T a qos=3", "qos \"3\" is none (allowed: 0, 1 or 2)"),
        ("T a qos=01", "qos \"01\" is none"),
        ("T a retain=yes", "retain \"yes\" is neither true nor false"),
        ("T a expiry=0", "expiry \"0\" is not a number of seconds"),
        (
            "T a expiry=500ms",
            "expiry \"500ms\" is not a number of seconds",
        ),
        (
            "T a expiry=200000d",
            "expiry \"200000d\" is not a number of seconds",
        ),
        ("T a tags=A||", "has an empty tag"),
        ("T a tags=A|B", "tag \"A|B\" has the character '|'"),
        ("T a tags=A tags=B", "tags= is given twice"),
        ("T a key=x", "unknown setting"),
    ] {
        let error = downlink_error(rule);
        assert!(error.contains(part), "{rule:?}: {error}");
    }
}

#[test]
fn rocketmq_names_are_checked_as_rocketmq_does() {
    for topic in [
        "a",
        "%RETRY%group",
        "A|b_c-9",
        &"x".repeat(127),
        &format!("%DLQ%{}", "x".repeat(250)),
    ] {
        assert_eq!(rocketmq_name::validate_topic(topic), Ok(()), "{topic}");
    }
    for topic in [
        "",
        " ",
        "ä",
        "a b",
        &"x".repeat(128),
        "SCHEDULE_TOPIC_XXXX",
        "CHECKPOINT_TOPIC",
    ] {
        assert!(rocketmq_name::validate_topic(topic).is_err(), "{topic}");
    }
    assert_eq!(rocketmq_name::validate_group(&"g".repeat(120)), Ok(()));
    for group in [
        "",
        "a.b",
        &"g".repeat(121),
        "DEFAULT_CONSUMER",
        "CID_RMQ_SYS_TRANS",
    ] {
        assert!(rocketmq_name::validate_group(group).is_err(), "{group}");
    }
}

/// Text of a template: literals with everything that needs care in quoting, and variables.
fn template(direction: Direction) -> impl Strategy<Value = String> {
    let variable = match direction {
        Direction::Uplink => "%[cut1]|%\\{[1-9]\\}|%\\{[a-z ]{1,5}\\}",
        Direction::Downlink => "%[kg]|%\\{[a-z0-9 ]{1,5}\\}",
    };
    vec(
        prop_oneof![
            variable,
            "[a-z \\\\\"=äß%]{1,6}".prop_map(|text| text.replace('%', "%%"))
        ],
        1..5,
    )
    .prop_map(|parts| parts.concat())
}

fn quote(token: &str) -> String {
    format!("\"{}\"", token.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn any_template_reads_back(text in template(Direction::Uplink)) {
        let parsed = Template::parse(&text, Direction::Uplink).unwrap();
        prop_assert_eq!(Template::parse(&parsed.to_string(), Direction::Uplink).unwrap(), parsed);
    }

    #[test]
    fn any_uplink_rule_reads_back_from_its_canonical_text(
        filter in "[a-z \"\\\\]{1,4}(/\\+|/[a-z]{0,3}){0,3}/#",
        topic in "([A-Z]{1,5}|%1|%%){1,3}",
        (tag, key, order) in (option::of(template(Direction::Uplink)), option::of(template(Direction::Uplink)), option::of(template(Direction::Uplink))),
        properties in vec(template(Direction::Uplink), 0..3),
    ) {
        let mut line = format!("{} {topic}", quote(&filter));
        for (name, value) in [("tag", tag), ("key", key), ("order", order)] {
            if let Some(value) = value {
                line.push_str(&format!("  {name}={}", quote(&value)));
            }
        }
        for (index, value) in properties.iter().enumerate() {
            line.push_str(&format!("\t{}", quote(&format!("prop.p{index}={value}"))));
        }
        let rule = UplinkRule::parse(&line).unwrap();
        prop_assert_eq!(&rule.filter, &filter);
        prop_assert_eq!(rule.properties.len(), properties.len());
        prop_assert_eq!(UplinkRule::parse(&rule.text).unwrap(), rule);
    }

    #[test]
    fn any_downlink_rule_reads_back_from_its_canonical_text(
        topic in "[A-Z%|_-]{1,10}",
        target in template(Direction::Downlink),
        tags in option::of(vec("[A-Za-z0-9_=]{1,4}", 1..4)),
        (qos, retain, expiry) in (option::of(0u8..3), option::of(any::<bool>()), option::of(1u32..)),
        client in option::of(template(Direction::Downlink)),
    ) {
        let mut line = format!("{topic} {}", quote(&target));
        line.push_str(&tags.map_or(String::new(), |tags| format!(" tags={}", tags.join(" || "))));
        line.push_str(&qos.map_or(String::new(), |qos| format!(" qos={qos}")));
        line.push_str(&retain.map_or(String::new(), |retain| format!(" retain={retain}")));
        line.push_str(&expiry.map_or(String::new(), |expiry| format!(" expiry={expiry}")));
        line.push_str(&client.map_or(String::new(), |client| format!(" client={}", quote(&client))));
        let rule = DownlinkRule::parse(&line).unwrap();
        prop_assert_eq!(rule.expiry_s, expiry);
        prop_assert_eq!(DownlinkRule::parse(&rule.text).unwrap(), rule);
    }

    #[test]
    fn any_text_is_a_rule_or_a_clean_error(text in "[ -~%{}\"\\\\|/+#\t\n]{0,60}|\\PC{0,40}") {
        if let Ok(rule) = UplinkRule::parse(&text) {
            prop_assert_eq!(UplinkRule::parse(&rule.text).unwrap(), rule);
        }
        if let Ok(rule) = DownlinkRule::parse(&text) {
            prop_assert_eq!(DownlinkRule::parse(&rule.text).unwrap(), rule);
        }
    }
}
