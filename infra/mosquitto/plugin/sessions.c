/* Who is connected, so that a session ends with its token. One entry a device, by its id. */
#include "zenthos_auth.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 16384 /* a power of two; some entries each at tens of thousands of devices */

static struct session *buckets[BUCKETS];

/* FNV-1a, 32 bits. */
static size_t bucket_of(const char *device_id)
{
    uint32_t hash = 2166136261u;
    while (*device_id != '\0')
        hash = (hash ^ (unsigned char)*device_id++) * 16777619u;
    return hash & (BUCKETS - 1);
}

/* The link to a device's session, or to the end of its bucket. */
static struct session **find(const char *device_id)
{
    struct session **link = &buckets[bucket_of(device_id)];
    while (*link != NULL && strcmp((*link)->device_id, device_id) != 0)
        link = &(*link)->next;
    return link;
}

bool remember_session(const char *device_id, const void *client, struct claims claims)
{
    struct session **link = find(device_id), *session = *link;
    if (session == NULL) {
        session = calloc(1, sizeof *session);
        if (session == NULL)
            return false;
        strncpy(session->device_id, device_id, DEVICE_ID_MAX);
        *link = session;
    }
    session->client = client;
    session->claims = claims;
    return true;
}

void forget_session(const char *device_id, const void *client)
{
    struct session **link = find(device_id), *session = *link;
    if (session != NULL && session->client == client) {
        *link = session->next;
        free(session);
    }
}

struct session *take_sessions(bool (*ends)(const struct session *, int64_t now), int64_t now)
{
    struct session *taken = NULL;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct session **link = &buckets[i];
        while (*link != NULL) {
            struct session *session = *link;
            if (ends(session, now)) {
                *link = session->next;
                session->next = taken;
                taken = session;
            } else {
                link = &session->next;
            }
        }
    }
    return taken;
}
