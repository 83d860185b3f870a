/* A Mosquitto plugin whose message callback does nothing: what any callback costs, so that the bridge's own share can be told from it.
 *
 * With `plugin_opt_idle_thread true` it also has a thread that sleeps. A process with a second thread pays at each system call (the
 * kernel counts references of descriptors, which it spares a process that shares them with nobody) and at each malloc and free: this
 * shows how much, apart from anything a callback does. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

static mosquitto_plugin_id_t *own_id;
static pthread_t idle_thread;
static bool has_idle_thread;

static void *sleep_for_ever(void *unused)
{
	for (;;) {
		pause();
	}
	return unused;
}

/* Signals are for the broker's own thread: the new one is born with all of them blocked. */
static bool start_idle_thread(void)
{
	sigset_t all;
	sigset_t before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	has_idle_thread = pthread_create(&idle_thread, NULL, sleep_for_ever, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return has_idle_thread;
}

static int on_message(int event, void *event_data, void *user_data)
{
	(void)event;
	(void)event_data;
	(void)user_data;
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
	for (int i = 0; i < supported_version_count; i++) {
		if (supported_versions[i] == 5) {
			return 5;
		}
	}
	return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **user_data, struct mosquitto_opt *options, int option_count)
{
	(void)user_data;
	own_id = identifier;
	for (int i = 0; i < option_count; i++) {
		if (strcmp(options[i].key, "idle_thread") == 0 && strcmp(options[i].value, "true") == 0 && !start_idle_thread()) {
			return MOSQ_ERR_NOMEM;
		}
	}
	return mosquitto_callback_register(own_id, MOSQ_EVT_MESSAGE, on_message, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *options, int option_count)
{
	(void)user_data;
	(void)options;
	(void)option_count;
	if (has_idle_thread) {
		pthread_cancel(idle_thread);
		pthread_join(idle_thread, NULL);
	}
	return mosquitto_callback_unregister(own_id, MOSQ_EVT_MESSAGE, on_message, NULL);
}
