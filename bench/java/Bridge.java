import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.eclipse.paho.client.mqttv3.IMqttActionListener;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.IMqttToken;
import org.eclipse.paho.client.mqttv3.MqttAsyncClient;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/**
 * The bridge that a user would write today: Eclipse Paho on the one side, RocketMQ's own client on the other. It is tuned fairly: sends
 * are asynchronous, many at once, and nothing goes to a disk. Like the bridge beside which it is measured, it loses nothing while it lives: a
 * message is acknowledged to the one side only when the other one has it.
 *
 * <pre>
 * Bridge up   MQTT_PORT FILTER NAMESRV ROCKETMQ_TOPIC         devices' messages into RocketMQ
 * Bridge down MQTT_PORT MQTT_TOPIC NAMESRV ROCKETMQ_TOPIC     RocketMQ's messages to devices, from the first one on
 * </pre>
 *
 * Prints {@code ready} once it is connected to both sides, and ends with its stdin.
 */
public final class Bridge {
    /** Sends that are under way at once. Mosquitto has to allow as many in flight. */
    private static final int WINDOW = 4096;
    private static final int QOS = 1;
    /** Paho takes 65535 at most. */
    private static final int PAHO_IN_FLIGHT = 20_000;
    /** RocketMQ's own default for one call of the listener is 1: a batch each makes Paho's pipeline full. */
    private static final int CONSUME_BATCH = 32;

    private final String port;
    private final String namesrv;
    private final String topic;
    private final String suffix = Long.toString(ProcessHandle.current().pid());

    private Bridge(String port, String namesrv, String topic) {
        this.port = port;
        this.namesrv = namesrv;
        this.topic = topic;
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 5 || !(args[0].equals("up") || args[0].equals("down"))) {
            System.err.println("usage: Bridge up|down MQTT_PORT MQTT_TOPIC NAMESRV ROCKETMQ_TOPIC");
            System.exit(2);
        }
        Bridge bridge = new Bridge(args[1], args[3], args[4]);
        if (args[0].equals("up")) {
            bridge.up(args[2]);
        } else {
            bridge.down(args[2]);
        }
        System.out.println("ready");
        while (System.in.read() >= 0) {
            // Nothing but the end of it is awaited.
        }
        Runtime.getRuntime().halt(0);
    }

    private MqttAsyncClient connect(String name, MqttCallback callback) throws Exception {
        MqttAsyncClient client = new MqttAsyncClient("tcp://127.0.0.1:" + port, name + "-" + suffix, new MemoryPersistence());
        MqttConnectOptions options = new MqttConnectOptions();
        options.setCleanSession(true);
        options.setMaxInflight(PAHO_IN_FLIGHT);
        options.setAutomaticReconnect(true);
        client.setCallback(callback);
        client.setManualAcks(true);
        client.connect(options).waitForCompletion();
        return client;
    }

    private void up(String filter) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("PG_BRIDGE_" + suffix);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("bridge-" + suffix);
        producer.start();
        MqttAsyncClient[] client = new MqttAsyncClient[1];
        Semaphore window = new Semaphore(WINDOW);
        client[0] = connect("bridge-up", new Listener() {
            @Override
            public void messageArrived(String from, MqttMessage message) throws Exception {
                window.acquire();
                Message out = new Message(topic, message.getPayload());
                out.putUserProperty("mqtt_topic", from);
                send(producer, out, () -> {
                    window.release();
                    acknowledge(client[0], message.getId());
                });
            }
        });
        client[0].subscribe(filter, QOS).waitForCompletion();
    }

    private static void acknowledge(MqttAsyncClient client, int id) {
        try {
            client.messageArrivedComplete(id, QOS);
        } catch (Exception failure) {
            System.err.println("acknowledging: " + failure);
        }
    }

    /** Again until RocketMQ has it. */
    private static void send(DefaultMQProducer producer, Message message, Runnable done) throws Exception {
        producer.send(message, new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                done.run();
            }

            @Override
            public void onException(Throwable failure) {
                try {
                    send(producer, message, done);
                } catch (Exception again) {
                    System.err.println("sending: " + again);
                }
            }
        });
    }

    private void down(String mqttTopic) throws Exception {
        MqttAsyncClient client = connect("bridge-down", new Listener());
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("CG_BRIDGE_" + topic + "_" + suffix);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("bridge-" + suffix);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeMessageBatchMaxSize(CONSUME_BATCH);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(new MessageListenerConcurrently() {
            @Override
            public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
                try {
                    return publish(client, mqttTopic, messages) ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
                } catch (Exception failure) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
            }
        });
        consumer.start();
    }

    /** True when the broker has acknowledged all of them. */
    private static boolean publish(MqttAsyncClient client, String mqttTopic, List<MessageExt> messages) throws Exception {
        CountDownLatch left = new CountDownLatch(messages.size());
        AtomicBoolean taken = new AtomicBoolean(true);
        IMqttActionListener listener = new IMqttActionListener() {
            @Override
            public void onSuccess(IMqttToken token) {
                left.countDown();
            }

            @Override
            public void onFailure(IMqttToken token, Throwable failure) {
                taken.set(false);
                left.countDown();
            }
        };
        for (MessageExt message : messages) {
            client.publish(mqttTopic, message.getBody(), QOS, false, null, listener);
        }
        left.await();
        return taken.get();
    }

    /** Hears nothing. */
    private static class Listener implements MqttCallback {
        @Override
        public void connectionLost(Throwable cause) {
            System.err.println("connection lost: " + cause);
        }

        @Override
        public void messageArrived(String from, MqttMessage message) throws Exception {
            // Only who subscribes gets any.
        }

        @Override
        public void deliveryComplete(IMqttDeliveryToken token) {
            // The tokens' own listeners are told.
        }
    }
}
