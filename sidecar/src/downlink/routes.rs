//! Which downlink rules want a message from RocketMQ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::config::Config;
use protocol::rules::DownlinkRule;
use rocketmq::{Incoming, Interest, Select, Subscription};
use tokio::sync::watch;

use crate::metrics::{DownRule, Metrics};

/// A rule with its counters.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) rule: DownlinkRule,
    pub(crate) counters: Arc<DownRule>,
    /// It is that of the cluster.
    pub(crate) is_shared: bool,
}

/// The downlink rules by RocketMQ topic.
#[derive(Debug, Default)]
pub(crate) struct Routes(BTreeMap<String, Vec<Arc<Route>>>);

impl Routes {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Routes {
        let mut routes = Routes::default();
        let shared = config.shared_downlink().map(|rule| (rule, true));
        let own = config.downlink.iter().map(|rule| (rule.clone(), false));
        for (rule, is_shared) in own.chain(shared) {
            let route = Arc::new(Route {
                counters: metrics.down_rule(&rule.text),
                rule,
                is_shared,
            });
            let topic = route.rule.topic.clone();
            routes.0.entry(topic).or_default().push(route);
        }
        routes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One subscription a topic, with all the tags that any of its rules wants; that of the cluster by interest.
    pub(crate) fn subscriptions(
        &self,
        interest: Option<&watch::Receiver<Arc<Interest>>>,
    ) -> Vec<Subscription> {
        self.0
            .iter()
            .map(|(topic, routes)| Subscription {
                topic: topic.clone(),
                select: match (routes.as_slice(), interest) {
                    ([only], Some(interest)) if only.is_shared => {
                        Select::Interest(interest.clone())
                    }
                    _ => Select::Tags(tags_of(routes)),
                },
            })
            .collect()
    }

    /// The rules for a message, in the order of the configuration. RocketMQ filters by the hash of a tag and by the union of
    /// all rules' tags, so the tag is compared here once more.
    pub(crate) fn matching(&self, incoming: &Incoming) -> Vec<Arc<Route>> {
        let tag = incoming.tag.as_deref();
        let routes = self
            .0
            .get(&incoming.queue.topic)
            .map_or(&[][..], Vec::as_slice);
        let wants = |route: &&Arc<Route>| {
            route
                .rule
                .tags
                .as_ref()
                .is_none_or(|tags| tags.matches(tag))
        };
        routes.iter().filter(wants).map(Arc::clone).collect()
    }

    /// Whether this is the topic of the cluster.
    pub(crate) fn is_shared(&self, topic: &str) -> bool {
        let routes = self.0.get(topic);
        routes.is_some_and(|routes| routes.iter().any(|route| route.is_shared))
    }

    /// The topic of the cluster, if its messages are wanted.
    pub(crate) fn shared_topic(&self) -> Option<&str> {
        let mut topics = self.0.keys().map(String::as_str);
        topics.find(|topic| self.is_shared(topic))
    }

    /// The first rule of a topic.
    pub(crate) fn first_of(&self, topic: &str) -> Option<Arc<Route>> {
        self.0.get(topic)?.first().map(Arc::clone)
    }
}

fn tags_of(routes: &[Arc<Route>]) -> String {
    if routes.iter().any(|route| route.rule.tags.is_none()) {
        return "*".to_owned();
    }
    let tags: BTreeSet<&str> = routes
        .iter()
        .filter_map(|route| route.rule.tags.as_ref())
        .flat_map(|tags| tags.iter())
        .collect();
    // Without blanks around the bars: with them RocketMQ's client silently receives nothing.
    tags.into_iter().collect::<Vec<_>>().join("||")
}

#[cfg(test)]
mod tests {
    use rocketmq::Queue;

    use super::*;

    fn routes(rules: &[&str]) -> Routes {
        let fixed = [("namesrv", "a:1"), ("node_id", "n")];
        let rules = rules.iter().map(|text| ("downlink", *text));
        let config = Config::from_options(fixed.into_iter().chain(rules)).unwrap();
        Routes::new(&config, &Metrics::default())
    }

    fn message(topic: &str, tag: Option<&str>) -> Incoming {
        Incoming {
            queue: Queue {
                topic: topic.into(),
                broker: "b".into(),
                id: 0,
            },
            tag: tag.map(str::to_owned),
            ..Incoming::default()
        }
    }

    #[test]
    fn a_topic_is_subscribed_once_with_all_its_tags() {
        let routes = routes(&["A x tags=Q||P", "A y tags=P || R", "B z", "B z2 tags=S"]);
        let subscriptions: Vec<_> = routes
            .subscriptions(None)
            .into_iter()
            .map(|s| match s.select {
                Select::Tags(tags) => (s.topic, tags),
                Select::Interest(_) => unreachable!("a rule's"),
            })
            .collect();
        assert_eq!(
            subscriptions,
            [("A".into(), "P||Q||R".into()), ("B".into(), "*".into())]
        );
    }

    #[test]
    fn several_rules_may_want_a_message_and_tags_are_compared_exactly() {
        let routes = routes(&["A x tags=P", "A y tags=P||R", "A all"]);
        let texts = |tag| -> Vec<_> {
            routes
                .matching(&message("A", tag))
                .iter()
                .map(|route| route.rule.target.to_string())
                .collect()
        };
        assert_eq!(texts(Some("P")), ["x", "y", "all"]);
        assert_eq!(texts(Some("R")), ["y", "all"]);
        assert_eq!(texts(Some("PR")), ["all"]);
        assert_eq!(texts(None), ["all"]);
        assert!(routes.matching(&message("C", None)).is_empty());
    }
}
