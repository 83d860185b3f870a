import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.admin.TopicStatsTable;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * RocketMQ's own producer and consumer, driven line by line by the benchmark: one command on stdin, one answer on stdout. It ends
 * with its stdin.
 *
 * <pre>
 * topic NAME QUEUES          creates the topic on every broker          ok
 * offset NAME                sum of the queues' max offsets             ok N
 * subscribe NAME             starts a push consumer                     ok
 * count NAME                 messages consumed since the last take      ok N
 * take NAME                  their latencies in ns, in order of arrival ok N N N ...
 * produce NAME COUNT RATE    sends COUNT messages, RATE a second        ok
 * </pre>
 *
 * A measured payload starts with a sequence number (8 bytes) and the time of sending (8 bytes, ns since 1970), both big-endian.
 */
public final class Backbone {
    private static final int PAYLOAD_BYTES = 128;
    private static final int HEADER_BYTES = 16;
    private static final long NANOS_PER_SECOND = 1_000_000_000L;

    private final String namesrv;
    private final String suffix = Long.toString(ProcessHandle.current().pid());
    private final DefaultMQAdminExt admin;
    private final DefaultMQProducer producer;
    private final Map<String, DefaultMQPushConsumer> consumers = new ConcurrentHashMap<>();
    private final Map<String, ConcurrentLinkedQueue<Long>> latencies = new ConcurrentHashMap<>();

    private Backbone(String namesrv) throws Exception {
        this.namesrv = namesrv;
        admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("bench-admin-" + suffix);
        admin.start();
        producer = new DefaultMQProducer("PG_BENCH_" + suffix);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("bench-producer-" + suffix);
        producer.start();
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 1) {
            System.err.println("usage: Backbone NAMESRV_HOST:PORT");
            System.exit(2);
        }
        Backbone backbone = new Backbone(args[0]);
        System.out.println("ready");
        backbone.serve();
        // Its clients' threads are not daemons, and a graceful shutdown takes seconds that nobody needs here.
        Runtime.getRuntime().halt(0);
    }

    private void serve() throws IOException {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String answer;
            try {
                answer = "ok " + execute(line.trim().split(" +"));
            } catch (Exception failure) {
                answer = "error " + String.valueOf(failure).replace('\n', ' ').replace('\r', ' ');
            }
            System.out.println(answer.trim());
        }
    }

    private String execute(String[] words) throws Exception {
        switch (words[0]) {
            case "topic":
                createTopic(words[1], Integer.parseInt(words[2]));
                return "";
            case "offset":
                return Long.toString(offset(words[1]));
            case "subscribe":
                subscribe(words[1]);
                return "";
            case "count":
                return Integer.toString(latencies.get(words[1]).size());
            case "take":
                return take(words[1]);
            case "produce":
                produce(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]));
                return "";
            default:
                throw new IllegalArgumentException("unknown command " + words[0]);
        }
    }

    private void createTopic(String name, int queues) throws Exception {
        ClusterInfo cluster = admin.examineBrokerClusterInfo();
        for (var broker : cluster.getBrokerAddrTable().values()) {
            admin.createAndUpdateTopicConfig(broker.selectBrokerAddr(), new TopicConfig(name, queues, queues));
        }
    }

    private long offset(String topic) throws Exception {
        TopicStatsTable stats = admin.examineTopicStats(topic);
        return stats.getOffsetTable().values().stream().mapToLong(queue -> queue.getMaxOffset()).sum();
    }

    /** A push consumer with default settings: what an application would use. */
    private void subscribe(String topic) throws Exception {
        ConcurrentLinkedQueue<Long> arrived = new ConcurrentLinkedQueue<>();
        latencies.put(topic, arrived);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("CG_" + topic + "_" + suffix);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("bench-consumer-" + topic + "-" + suffix);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            long now = unixNanos();
            for (MessageExt message : messages) {
                if (message.getBody().length >= HEADER_BYTES) {
                    arrived.add(now - ByteBuffer.wrap(message.getBody()).getLong(Long.BYTES));
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        consumers.put(topic, consumer);
    }

    private String take(String topic) {
        ConcurrentLinkedQueue<Long> arrived = latencies.get(topic);
        StringBuilder answer = new StringBuilder();
        for (Long latency = arrived.poll(); latency != null; latency = arrived.poll()) {
            answer.append(latency).append(' ');
        }
        return answer.toString();
    }

    private void produce(String topic, int count, int rate) throws Exception {
        long start = System.nanoTime();
        for (int sequence = 0; sequence < count; sequence++) {
            long due = start + sequence * NANOS_PER_SECOND / rate;
            for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
            byte[] body = ByteBuffer.allocate(PAYLOAD_BYTES).putLong(sequence).putLong(unixNanos()).array();
            if (producer.send(new Message(topic, body)).getSendStatus() != SendStatus.SEND_OK) {
                throw new IOException("RocketMQ did not store message " + sequence + " of " + topic);
            }
        }
    }

    private static long unixNanos() {
        Instant now = Instant.now();
        return now.getEpochSecond() * NANOS_PER_SECOND + now.getNano();
    }
}
