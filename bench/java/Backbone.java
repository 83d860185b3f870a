import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
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
 * flood NAME COUNT BYTES WAY sends COUNT messages as fast as they are    ok NANOS
 *                            taken, one a request (WAY async) or many
 *                            (WAY batch)
 * drain NAME COUNT           consumes COUNT messages from the oldest on, ok NANOS, from the first to the last
 * </pre>
 *
 * A measured payload starts with a sequence number (8 bytes) and the time of sending (8 bytes, ns since 1970), both big-endian.
 */
public final class Backbone {
    private static final int PAYLOAD_BYTES = 128;
    private static final int HEADER_BYTES = 16;
    /** As the bridge's own batch_messages_max. */
    private static final int BATCH_MESSAGES = 64;
    /** Requests that are under way at once. */
    private static final int WINDOW = 1024;
    private static final int BATCH_WINDOW = 32;
    /** As the reference bridge has it. */
    private static final int CONSUME_BATCH = 32;
    private static final long DRAIN_TIMEOUT_S = 180;
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
            case "flood":
                return Long.toString(flood(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]), words[4].equals("batch")));
            case "drain":
                return Long.toString(drain(words[1], Integer.parseInt(words[2])));
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

    private long flood(String topic, int count, int bytes, boolean batches) throws Exception {
        int window = batches ? BATCH_WINDOW : WINDOW;
        Semaphore free = new Semaphore(window);
        long start = System.nanoTime();
        for (int sequence = 0; sequence < count; ) {
            List<Message> messages = new ArrayList<>();
            for (int end = Math.min(count, sequence + (batches ? BATCH_MESSAGES : 1)); sequence < end; sequence++) {
                messages.add(new Message(topic, ByteBuffer.allocate(bytes).putLong(sequence).putLong(unixNanos()).array()));
            }
            free.acquire();
            flood(messages, free);
        }
        free.acquire(window);
        return System.nanoTime() - start;
    }

    /** Sends again until RocketMQ has it. */
    private void flood(List<Message> messages, Semaphore free) throws Exception {
        SendCallback callback = new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                free.release();
            }

            @Override
            public void onException(Throwable failure) {
                try {
                    flood(messages, free);
                } catch (Exception again) {
                    System.err.println("flooding: " + again);
                }
            }
        };
        if (messages.size() == 1) {
            producer.send(messages.get(0), callback);
        } else {
            producer.send(messages, callback);
        }
    }

    private long drain(String topic, int count) throws Exception {
        AtomicInteger left = new AtomicInteger(count);
        AtomicLong first = new AtomicLong();
        CountDownLatch done = new CountDownLatch(1);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("CG_DRAIN_" + System.nanoTime());
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("bench-drain-" + System.nanoTime());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeMessageBatchMaxSize(CONSUME_BATCH);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            first.compareAndSet(0, System.nanoTime());
            if (left.addAndGet(-messages.size()) <= 0) {
                done.countDown();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        boolean all = done.await(DRAIN_TIMEOUT_S, TimeUnit.SECONDS);
        long end = System.nanoTime();
        consumer.shutdown();
        if (!all) {
            throw new IOException(left + " messages of " + topic + " did not come");
        }
        return end - first.get();
    }

    private static long unixNanos() {
        Instant now = Instant.now();
        return now.getEpochSecond() * NANOS_PER_SECOND + now.getNano();
    }
}
