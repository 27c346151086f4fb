/* A plugin for Mosquitto 2: devices come in with their token, and go when it ends.
 *
 * 1. Services are left to the password and access files; about devices the plugin alone decides.
 * 2. A device's client id is its device id: it has one connection, and takes nobody else's over.
 * 3. Once a second it is looked whether the public key or the revocation list was replaced. A file
 *    that is missing or damaged leaves what was known before in force; at the start it is an error.
 * 4. A session ends when its token expires, and then its last will is published; when its token is
 *    revoked, without it; and when the key is another one, since a token may have been forged with
 *    the old one. Whose token still holds comes back by itself.
 * 5. Neither tokens nor passwords are logged.
 *
 * Options: plugin_opt_public_key_file, plugin_opt_revocations_file.
 */
#include "zenthos_auth.h"

#include <errno.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PLUGIN_VERSION 5
#define REVOCATIONS_MAX_BYTES (64u << 20)
#define UNUSED(name) ((void)(name))

static struct {
    mosquitto_plugin_id_t *id;
    struct watched key_file, revocations_file;
    struct key key;
    struct revocations revocations;
    int64_t looked_at;
    bool key_replaced; /* since sessions were last looked at */
    bool reloading;
} plugin;

/* A file that is there and cannot be read, as when all file descriptors are in use, is read again
 * at the next look. */
static void say_unreadable(struct watched *file)
{
    mosquitto_log_printf(MOSQ_LOG_ERR, "zenthos: %s: %s", file->path, strerror(errno));
    if (file->seen.st_ino != 0)
        file->seen.st_size = -1;
}

static bool load_key(void)
{
    size_t length;
    const char *path = plugin.key_file.path;
    char *pem = read_whole(path, KEY_MAX, &length);
    bool good = pem != NULL && is_public_key(pem);
    if (pem == NULL)
        say_unreadable(&plugin.key_file);
    else if (!good)
        mosquitto_log_printf(MOSQ_LOG_ERR, "zenthos: %s: not a public key in PEM", path);
    else if (length != plugin.key.length || memcmp(pem, plugin.key.pem, length) != 0) {
        memcpy(plugin.key.pem, pem, length);
        plugin.key.length = length;
        plugin.key_replaced = true;
    }
    free(pem);
    return good;
}

static bool load_revocations(void)
{
    size_t length;
    const char *path = plugin.revocations_file.path;
    char *text = read_whole(path, REVOCATIONS_MAX_BYTES, &length);
    long line = text == NULL ? -1 : parse_revocations(&plugin.revocations, text);
    if (line > 0)
        mosquitto_log_printf(MOSQ_LOG_ERR, "zenthos: %s: line %ld is not `device_id second`", path,
                             line);
    else if (line < 0)
        say_unreadable(&plugin.revocations_file);
    free(text);
    return line == 0;
}

static bool is_revoked(const char *device_id, struct claims claims)
{
    return claims.issued_at < revoked_before(&plugin.revocations, device_id);
}

static bool ends(const struct session *session, int64_t now)
{
    return plugin.key_replaced || session->claims.expires_at <= now ||
           is_revoked(session->device_id, session->claims);
}

/* They are taken out first: a kick calls on_disconnect before it returns. */
static void end_sessions(int64_t now)
{
    struct session *session = take_sessions(ends, now);
    while (session != NULL) {
        struct session *next = session->next;
        bool expired = session->claims.expires_at <= now;
        bool revoked = is_revoked(session->device_id, session->claims);
        mosquitto_log_printf(MOSQ_LOG_NOTICE, "zenthos: %s leaves: token %s", session->device_id,
                             revoked ? "revoked" : expired ? "expired" : "of an earlier key");
        mosquitto_kick_client_by_clientid(session->device_id, expired && !revoked);
        free(session);
        session = next;
    }
    plugin.key_replaced = false;
}

static int on_tick(int event, void *event_data, void *user_data)
{
    UNUSED(event), UNUSED(event_data), UNUSED(user_data);
    int64_t now = time(NULL);
    plugin.reloading = false;
    if (now == plugin.looked_at)
        return MOSQ_ERR_SUCCESS;
    plugin.looked_at = now;
    if (has_changed(&plugin.key_file))
        load_key();
    if (has_changed(&plugin.revocations_file))
        load_revocations();
    end_sessions(now);
    return MOSQ_ERR_SUCCESS;
}

/* SIGHUP: before the next tick Mosquitto asks about every client again, the absent ones included.
 * Who was let in stays in, since end_sessions() looks after that; to refuse an absent client here
 * would put it on Mosquitto 2.0.11's list of expiring sessions twice. */
static int on_reload(int event, void *event_data, void *user_data)
{
    UNUSED(event), UNUSED(event_data), UNUSED(user_data);
    plugin.reloading = true;
    return MOSQ_ERR_SUCCESS;
}

/* NULL where the device is let in, else why not. */
static const char *admit(const struct mosquitto *client, const char *device_id, const char *token)
{
    struct claims claims;
    const char *client_id = mosquitto_client_id(client);
    if (client_id == NULL || strcmp(client_id, device_id) != 0)
        return "its client id is not its device id";
    if (token == NULL)
        return "no token";
    const char *problem = check_token(token, device_id, &plugin.key, time(NULL), &claims);
    if (problem != NULL)
        return problem;
    if (is_revoked(device_id, claims))
        return "revoked";
    return remember_session(device_id, client, claims) ? NULL : "out of memory";
}

static int on_connect(int event, void *event_data, void *user_data)
{
    UNUSED(event), UNUSED(user_data);
    const struct mosquitto_evt_basic_auth *who = event_data;
    if (who->username == NULL)
        return MOSQ_ERR_AUTH;
    if (is_service(who->username))
        return MOSQ_ERR_PLUGIN_DEFER;
    if (!is_device_id(who->username))
        return MOSQ_ERR_AUTH;
    if (plugin.reloading)
        return MOSQ_ERR_SUCCESS;
    const char *problem = admit(who->client, who->username, who->password);
    if (problem == NULL)
        return MOSQ_ERR_SUCCESS;
    mosquitto_log_printf(MOSQ_LOG_NOTICE, "zenthos: %s refused: %s", who->username, problem);
    return MOSQ_ERR_AUTH;
}

static int on_disconnect(int event, void *event_data, void *user_data)
{
    UNUSED(event), UNUSED(user_data);
    const struct mosquitto_evt_disconnect *who = event_data;
    const char *client_id = mosquitto_client_id(who->client);
    if (client_id != NULL)
        forget_session(client_id, who->client);
    return MOSQ_ERR_SUCCESS;
}

/* Asked of absent devices too, for which messages are kept: it goes by the user name alone. */
static int on_access(int event, void *event_data, void *user_data)
{
    UNUSED(event), UNUSED(user_data);
    const struct mosquitto_evt_acl_check *what = event_data;
    const char *user = mosquitto_client_username(what->client);
    bool allowed = false;
    if (user == NULL)
        return MOSQ_ERR_ACL_DENIED;
    if (is_service(user))
        return MOSQ_ERR_PLUGIN_DEFER;
    switch (what->access) {
    case MOSQ_ACL_WRITE:
        allowed = may_publish(user, what->topic);
        break;
    case MOSQ_ACL_READ:
        allowed = may_receive(user, what->topic);
        break;
    case MOSQ_ACL_SUBSCRIBE:
        allowed = may_subscribe(user, what->topic);
        break;
    case MOSQ_ACL_UNSUBSCRIBE:
        allowed = true;
        break;
    }
    return allowed ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
}

static char *copy_option(const struct mosquitto_opt *options, int count, const char *key)
{
    for (int i = 0; i < count; i++)
        if (strcmp(options[i].key, key) == 0)
            return strdup(options[i].value);
    mosquitto_log_printf(MOSQ_LOG_ERR, "zenthos: plugin_opt_%s is missing", key);
    return NULL;
}

static const struct {
    int event;
    MOSQ_FUNC_generic_callback call;
} CALLBACKS[] = {
    {MOSQ_EVT_BASIC_AUTH, on_connect}, {MOSQ_EVT_ACL_CHECK, on_access},
    {MOSQ_EVT_DISCONNECT, on_disconnect}, {MOSQ_EVT_TICK, on_tick},
    {MOSQ_EVT_RELOAD, on_reload},
};
#define CALLBACK_COUNT (sizeof CALLBACKS / sizeof CALLBACKS[0])

int mosquitto_plugin_version(int supported_count, const int *supported)
{
    for (int i = 0; i < supported_count; i++)
        if (supported[i] == PLUGIN_VERSION)
            return PLUGIN_VERSION;
    return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **user_data,
                          struct mosquitto_opt *options, int option_count)
{
    UNUSED(user_data);
    plugin.id = identifier;
    plugin.key_file.path = copy_option(options, option_count, "public_key_file");
    plugin.revocations_file.path = copy_option(options, option_count, "revocations_file");
    if (plugin.key_file.path == NULL || plugin.revocations_file.path == NULL)
        return MOSQ_ERR_INVAL;
    has_changed(&plugin.key_file); /* before the read: what is written after it is seen later */
    has_changed(&plugin.revocations_file);
    if (!load_key() || !load_revocations())
        return MOSQ_ERR_INVAL;
    plugin.key_replaced = false;
    for (size_t i = 0; i < CALLBACK_COUNT; i++) {
        int problem = mosquitto_callback_register(plugin.id, CALLBACKS[i].event,
                                                  CALLBACKS[i].call, NULL, NULL);
        if (problem != MOSQ_ERR_SUCCESS)
            return problem;
    }
    return MOSQ_ERR_SUCCESS;
}

static bool always(const struct session *session, int64_t now)
{
    UNUSED(session), UNUSED(now);
    return true;
}

int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *options, int option_count)
{
    UNUSED(user_data), UNUSED(options), UNUSED(option_count);
    for (size_t i = 0; i < CALLBACK_COUNT; i++)
        mosquitto_callback_unregister(plugin.id, CALLBACKS[i].event, CALLBACKS[i].call, NULL);
    for (struct session *session = take_sessions(always, 0), *next; session; session = next) {
        next = session->next;
        free(session);
    }
    free(plugin.revocations.entries);
    free(plugin.key_file.path);
    free(plugin.revocations_file.path);
    memset(&plugin, 0, sizeof plugin);
    return MOSQ_ERR_SUCCESS;
}
