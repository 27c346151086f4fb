/* Device tokens at the broker: what the parts of the plugin offer each other.
 *
 * rules.c decides and touches nothing outside; files.c reads; sessions.c and revocations.c remember;
 * zenthos_auth.c is the shell that Mosquitto calls, always from its one thread.
 */
#ifndef ZENTHOS_AUTH_H
#define ZENTHOS_AUTH_H

#define _POSIX_C_SOURCE 200809L /* for all parts: each includes this file first */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define DEVICE_ID_MAX 63              /* zenthos_core/topics.py */
#define TOKEN_MAX 4096                /* bytes; ours have about 350 */
#define TOKEN_LIFE_S (30 * 24 * 3600) /* zenthos_core/tokens.py, DEVICE_TOKEN_S */
#define CLOCK_LEAD_S 60               /* how far the issuer's clock may be ahead of ours */
#define KEY_MAX 8192                  /* bytes of a key file */

/* ---- rules.c ---- */

struct key {
    unsigned char pem[KEY_MAX];
    size_t length;
};

struct claims {
    int64_t issued_at, expires_at; /* epoch seconds */
};

bool is_service(const char *username);
bool is_device_id(const char *text);

/* Whether the bytes look like one public key; a private one is refused. */
bool is_public_key(const char *pem);

/* NULL and the claims of a good token of this device, else what is wrong with it. */
const char *check_token(const char *token, const char *device_id, const struct key *key,
                        int64_t now, struct claims *claims);

bool may_publish(const char *device_id, const char *topic);
bool may_receive(const char *device_id, const char *topic);
bool may_subscribe(const char *device_id, const char *filter);

/* ---- files.c ---- */

/* A file that others replace while we run. */
struct watched {
    char *path;
    struct stat seen; /* all zero where it was missing */
};

/* Whether it differs from what it was at the last call. */
bool has_changed(struct watched *file);

/* Its content with a NUL after it, to be freed; NULL and errno where it cannot be read whole. */
char *read_whole(const char *path, size_t max_bytes, size_t *length);

/* ---- revocations.c ---- */

struct revocation {
    char device_id[DEVICE_ID_MAX + 1];
    int64_t before; /* tokens issued earlier than this second are void */
};

struct revocations {
    struct revocation *entries; /* sorted by device */
    size_t count;
};

/* Replace the list by `text`, lines of `device_id second`. 0, or the number of the line that is
 * wrong, or -1 without memory; the list is then left as it was. */
long parse_revocations(struct revocations *list, const char *text);

/* 0 for a device that is not listed. */
int64_t revoked_before(const struct revocations *list, const char *device_id);

/* ---- sessions.c ---- */

/* A connected device; a device has one connection, since its client id is its own id. */
struct session {
    struct session *next;
    const void *client; /* tells a connection from the one that replaced it; never followed */
    struct claims claims;
    char device_id[DEVICE_ID_MAX + 1];
};

/* False without memory. */
bool remember_session(const char *device_id, const void *client, struct claims claims);

/* Nothing to do where another connection of the device has taken over. */
void forget_session(const char *device_id, const void *client);

/* Take out those for which `ends` holds, linked by `next`, to be freed. */
struct session *take_sessions(bool (*ends)(const struct session *, int64_t now), int64_t now);

#endif
