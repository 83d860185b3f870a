/* A Mosquitto plugin whose message callback does nothing: what any callback costs, so that the bridge's own share can be told from it. */
#include <stddef.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

static mosquitto_plugin_id_t *own_id;

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
	(void)options;
	(void)option_count;
	own_id = identifier;
	return mosquitto_callback_register(own_id, MOSQ_EVT_MESSAGE, on_message, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *options, int option_count)
{
	(void)user_data;
	(void)options;
	(void)option_count;
	return mosquitto_callback_unregister(own_id, MOSQ_EVT_MESSAGE, on_message, NULL);
}
