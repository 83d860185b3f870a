// RocketMQ's own Java client, made scriptable: what the end-to-end tests look into RocketMQ with, so that what arrived
// there is counted by a client that isn't ours.
//
//   java -cp "$MRMQ_ROCKETMQ_LIB/*:$MRMQ_JAVA_CLASSES" Probe serve
//       reads one JSON object a line on standard input and answers each with one JSON object a line:
//         {"id":1,"op":"create-topic","namesrv":"127.0.0.1:9876","topic":"T","queues":4}
//       An answer carries the id of its question, and `error` where the question could not be answered. Questions are
//       answered side by side, so answers come in any order. End of input ends it.
//   … Probe consume-one TOPIC [--namesrv HOST:PORT] [--timeout SECONDS]   the first message of the topic, as one JSON line
//   … Probe produce TOPIC BODY [--namesrv HOST:PORT] [--tag TAG] [--keys KEYS] [--property NAME=VALUE]…
//
// The name server is MRMQ_NAMESRV where none is given.

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import com.alibaba.fastjson2.JSONWriter;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class Probe {
    private static final String CLUSTER = "DefaultCluster";
    private static final int PULL_BATCH = 32;
    private static final long PULL_TIMEOUT_MS = 5_000;

    /** The clients of one RocketMQ, started when they are first wanted. */
    private static final class Clients {
        private final String namesrv;
        /** By how they compress. */
        private final Map<String, DefaultMQProducer> producers = new TreeMap<>();
        private DefaultMQPullConsumer consumer;
        private DefaultMQAdminExt admin;

        Clients(String namesrv) {
            this.namesrv = namesrv;
        }

        // One instance name a name server and role: RocketMQ's clients share connections by it.
        private String instance(String role) {
            return "probe-" + role + "-" + ProcessHandle.current().pid() + "-" + namesrv.replaceAll("[^0-9A-Za-z]", "_");
        }

        synchronized void end() {
            producers.values().forEach(DefaultMQProducer::shutdown);
            if (consumer != null) {
                consumer.shutdown();
            }
            if (admin != null) {
                admin.shutdown();
            }
        }

        /** As RocketMQ's own, bodies from 4 KiB on are compressed: in this way. */
        synchronized DefaultMQProducer producer(String compression) throws MQClientException {
            if (!producers.containsKey(compression)) {
                DefaultMQProducer made = new DefaultMQProducer("PROBE_PRODUCER_" + compression);
                made.setNamesrvAddr(namesrv);
                made.setInstanceName(instance("producer-" + compression));
                made.setCompressType(CompressionType.of(compression));
                made.setMaxMessageSize(32 * 1024 * 1024);
                made.setRetryTimesWhenSendFailed(5);
                made.start();
                producers.put(compression, made);
            }
            return producers.get(compression);
        }

        synchronized DefaultMQPullConsumer consumer() throws MQClientException {
            if (consumer == null) {
                DefaultMQPullConsumer made = new DefaultMQPullConsumer("PROBE_CONSUMER");
                made.setNamesrvAddr(namesrv);
                made.setInstanceName(instance("consumer"));
                made.start();
                consumer = made;
            }
            return consumer;
        }

        synchronized DefaultMQAdminExt admin() throws MQClientException {
            if (admin == null) {
                DefaultMQAdminExt made = new DefaultMQAdminExt();
                made.setNamesrvAddr(namesrv);
                made.setInstanceName(instance("admin"));
                made.start();
                admin = made;
            }
            return admin;
        }
    }

    private static final Map<String, Clients> CLIENTS = new ConcurrentHashMap<>();
    private static final PrintStream ANSWERS = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false, StandardCharsets.UTF_8);

    private Probe() {
    }

    public static void main(String[] arguments) throws Exception {
        // RocketMQ's clients must not write between the answers.
        System.setOut(System.err);
        if (arguments.length == 0) {
            usage();
        }
        switch (arguments[0]) {
            case "serve":
                serve();
                break;
            case "consume-one":
                consumeOne(arguments);
                break;
            case "produce":
                produceOne(arguments);
                break;
            default:
                usage();
        }
        // The clients' threads are no daemons.
        System.exit(0);
    }

    private static void usage() {
        System.err.println("usage: Probe serve | consume-one TOPIC [--namesrv HOST:PORT] [--timeout SECONDS] | produce TOPIC BODY"
            + " [--namesrv HOST:PORT] [--tag TAG] [--keys KEYS] [--property NAME=VALUE]...");
        System.exit(2);
    }

    private static void serve() throws Exception {
        ExecutorService workers = Executors.newCachedThreadPool();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = lines.readLine()) != null) {
            JSONObject question = JSON.parseObject(line);
            workers.execute(() -> {
                JSONObject answer;
                try {
                    answer = answer(question);
                } catch (Throwable problem) {
                    answer = new JSONObject();
                    answer.put("error", String.valueOf(problem));
                }
                answer.put("id", question.get("id"));
                print(answer);
            });
        }
    }

    private static void print(JSONObject answer) {
        synchronized (ANSWERS) {
            ANSWERS.println(answer.toString(JSONWriter.Feature.WriteMapNullValue));
            ANSWERS.flush();
        }
    }

    private static JSONObject answer(JSONObject question) throws Exception {
        String operation = question.getString("op");
        if ("forget".equals(operation)) {
            Clients forgotten = CLIENTS.remove(question.getString("namesrv"));
            if (forgotten != null) {
                forgotten.end();
            }
            return new JSONObject();
        }
        Clients clients = CLIENTS.computeIfAbsent(question.getString("namesrv"), Clients::new);
        switch (operation) {
            case "create-topic":
                return createTopic(clients, question.getString("topic"), question.getIntValue("queues", 4));
            case "delete-topic":
                return deleteTopic(clients, question.getString("topic"));
            case "produce":
                return produce(clients, question);
            case "read":
                return read(clients, question.getString("topic"), question.getJSONObject("offsets"), question.getIntValue("max", 20_000));
            case "committed":
                return committed(clients, question.getString("group"), question.getString("topic"));
            case "replicas":
                return replicas(clients, question.getString("controller"), question.getString("broker"));
            default:
                throw new IllegalArgumentException("unknown op " + operation);
        }
    }

    private static JSONObject createTopic(Clients clients, String topic, int queues) throws Exception {
        ClusterInfo cluster = clients.admin().examineBrokerClusterInfo();
        TopicConfig config = new TopicConfig(topic, queues, queues);
        int brokers = 0;
        Set<String> names = cluster.getClusterAddrTable().get(CLUSTER);
        if (names == null) {
            throw new IllegalStateException("no broker of " + CLUSTER + " is registered");
        }
        for (String name : names) {
            BrokerData broker = cluster.getBrokerAddrTable().get(name);
            String master = broker == null ? null : broker.getBrokerAddrs().get(0L);
            if (master != null) {
                clients.admin().createAndUpdateTopicConfig(master, config);
                brokers++;
            }
        }
        if (brokers == 0) {
            throw new IllegalStateException("no master broker is registered");
        }
        // The name server hears of it from the broker: it is there when its route is.
        long deadline = System.currentTimeMillis() + 60_000;
        while (true) {
            try {
                if (clients.consumer().fetchSubscribeMessageQueues(topic).size() == queues * brokers) {
                    return new JSONObject();
                }
            } catch (MQClientException notYet) {
                if (System.currentTimeMillis() > deadline) {
                    throw notYet;
                }
            }
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("the route of " + topic + " has not come within a minute");
            }
            Thread.sleep(50);
        }
    }

    private static JSONObject deleteTopic(Clients clients, String topic) throws Exception {
        ClusterInfo cluster = clients.admin().examineBrokerClusterInfo();
        Set<String> masters = new java.util.HashSet<>();
        for (BrokerData broker : cluster.getBrokerAddrTable().values()) {
            masters.add(broker.getBrokerAddrs().get(0L));
        }
        clients.admin().deleteTopicInBroker(masters, topic);
        clients.admin().deleteTopicInNameServer(new java.util.HashSet<>(java.util.List.of(clients.namesrv.split(";"))), topic);
        return new JSONObject();
    }

    private static JSONObject produce(Clients clients, JSONObject question) throws Exception {
        JSONArray messages = question.getJSONArray("messages");
        for (int index = 0; index < messages.size(); index++) {
            send(clients, question.getString("topic"), messages.getJSONObject(index));
        }
        return new JSONObject();
    }

    private static String send(Clients clients, String topic, JSONObject wanted) throws Exception {
        Message message = new Message(topic, Base64.getDecoder().decode(wanted.getString("body")));
        if (wanted.getString("tag") != null) {
            message.setTags(wanted.getString("tag"));
        }
        if (wanted.getString("keys") != null) {
            message.setKeys(wanted.getString("keys"));
        }
        JSONObject properties = wanted.getJSONObject("properties");
        if (properties != null) {
            for (String name : properties.keySet()) {
                message.putUserProperty(name, properties.getString(name));
            }
        }
        SendResult result;
        long limit = wanted.getLongValue("timeout_ms", 30_000);
        Integer queue = wanted.getInteger("queue");
        String compression = wanted.getString("compression");
        DefaultMQProducer producer = clients.producer(compression == null ? "ZLIB" : compression);
        if (queue == null) {
            result = producer.send(message, limit);
        } else {
            result = producer.send(message, (queues, one, id) -> queues.stream()
                .filter(candidate -> candidate.getQueueId() == (Integer) id).findFirst().orElseThrow(), queue, limit);
        }
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException("sent with " + result.getSendStatus());
        }
        return result.getMsgId();
    }

    /** Everything of the topic from the given offsets on (queues that aren't named: from 0), as far as it is there now. */
    private static JSONObject read(Clients clients, String topic, JSONObject offsets, int max) throws Exception {
        DefaultMQPullConsumer consumer = clients.consumer();
        JSONArray messages = new JSONArray();
        JSONObject next = new JSONObject();
        Set<MessageQueue> queues;
        try {
            queues = consumer.fetchSubscribeMessageQueues(topic);
        } catch (MQClientException missing) {
            // A topic that isn't there has no messages; it may come later.
            queues = Set.of();
        }
        for (MessageQueue queue : queues) {
            String name = queue.getBrokerName() + "/" + queue.getQueueId();
            long offset = offsets == null ? 0 : offsets.getLongValue(name, 0);
            while (messages.size() < max) {
                PullResult result = consumer.pull(queue, "*", offset, PULL_BATCH, PULL_TIMEOUT_MS);
                if (result.getPullStatus() == PullStatus.FOUND) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        messages.add(describe(message, queue));
                    }
                } else if (result.getNextBeginOffset() == offset || result.getPullStatus() == PullStatus.NO_NEW_MSG) {
                    break;
                }
                offset = result.getNextBeginOffset();
            }
            next.put(name, offset);
        }
        JSONObject answer = new JSONObject();
        answer.put("messages", messages);
        answer.put("offsets", next);
        return answer;
    }

    private static JSONObject describe(MessageExt message, MessageQueue queue) {
        JSONObject described = new JSONObject();
        described.put("queue", queue.getBrokerName() + "/" + queue.getQueueId());
        described.put("offset", message.getQueueOffset());
        described.put("msg_id", message.getMsgId());
        described.put("tag", message.getTags());
        described.put("keys", message.getKeys());
        described.put("properties", new TreeMap<>(message.getProperties()));
        described.put("body", Base64.getEncoder().encodeToString(message.getBody()));
        described.put("born_at_ms", message.getBornTimestamp());
        described.put("stored_at_ms", message.getStoreTimestamp());
        return described;
    }

    /** What a consumer group has committed, summed over the topic's queues, beside what there is. */
    private static JSONObject committed(Clients clients, String group, String topic) throws Exception {
        long committed = 0;
        long there = 0;
        for (var wrapper : clients.admin().examineConsumeStats(group, topic).getOffsetTable().entrySet()) {
            if (wrapper.getKey().getTopic().equals(topic)) {
                committed += Math.max(0, wrapper.getValue().getConsumerOffset());
                there += wrapper.getValue().getBrokerOffset();
            }
        }
        JSONObject answer = new JSONObject();
        answer.put("committed", committed);
        answer.put("there", there);
        return answer;
    }

    /** The master of a broker name as the name server has it, and how many brokers the controller has in sync. */
    private static JSONObject replicas(Clients clients, String controller, String broker) throws Exception {
        JSONObject answer = new JSONObject();
        BrokerData addresses = clients.admin().examineBrokerClusterInfo().getBrokerAddrTable().get(broker);
        answer.put("master", addresses == null ? null : addresses.getBrokerAddrs().get(0L));
        var known = clients.admin().getInSyncStateData(controller, java.util.List.of(broker)).getReplicasInfoTable().get(broker);
        answer.put("in_sync", known == null ? 0 : known.getInSyncReplicas().size());
        return answer;
    }

    private static void consumeOne(String[] arguments) throws Exception {
        String topic = operand(arguments, 1);
        long deadline = System.currentTimeMillis() + 1_000L * Long.parseLong(option(arguments, "--timeout", "60"));
        Clients clients = new Clients(namesrv(arguments));
        while (true) {
            JSONArray messages = new JSONArray();
            try {
                messages = read(clients, topic, null, 1).getJSONArray("messages");
            } catch (Exception notYet) {
                System.err.println("not yet: " + notYet.getMessage());
            }
            if (!messages.isEmpty()) {
                print(messages.getJSONObject(0));
                return;
            }
            if (System.currentTimeMillis() > deadline) {
                System.err.println("nothing has come to " + topic);
                System.exit(1);
            }
            Thread.sleep(50);
        }
    }

    private static void produceOne(String[] arguments) throws Exception {
        JSONObject wanted = new JSONObject();
        wanted.put("body", Base64.getEncoder().encodeToString(operand(arguments, 2).getBytes(StandardCharsets.UTF_8)));
        wanted.put("tag", option(arguments, "--tag", null));
        wanted.put("keys", option(arguments, "--keys", null));
        JSONObject properties = new JSONObject();
        for (int index = 3; index + 1 < arguments.length; index++) {
            if (arguments[index].equals("--property")) {
                String[] pair = arguments[index + 1].split("=", 2);
                properties.put(pair[0], pair.length == 2 ? pair[1] : "");
            }
        }
        wanted.put("properties", properties);
        JSONObject answer = new JSONObject();
        answer.put("id", send(new Clients(namesrv(arguments)), operand(arguments, 1), wanted));
        print(answer);
    }

    private static String operand(String[] arguments, int index) {
        if (index >= arguments.length || arguments[index].startsWith("--")) {
            usage();
        }
        return arguments[index];
    }

    private static String namesrv(String[] arguments) {
        String namesrv = option(arguments, "--namesrv", System.getenv("MRMQ_NAMESRV"));
        if (namesrv == null) {
            System.err.println("give --namesrv HOST:PORT or set MRMQ_NAMESRV");
            System.exit(2);
        }
        return namesrv;
    }

    private static String option(String[] arguments, String name, String otherwise) {
        for (int index = 1; index + 1 < arguments.length; index++) {
            if (arguments[index].equals(name)) {
                return arguments[index + 1];
            }
        }
        return otherwise;
    }
}
