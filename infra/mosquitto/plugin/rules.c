/* Who is a device, what makes its token good, and which topics are its own. Pure.
 *
 * 1. A user name that begins with `svc-` is a service's; every other one is a device's or nobody's.
 * 2. A token is at most 4 KiB: three base64url parts with dots between them.
 * 3. It is signed with ES256 by our key, whatever else its header proposes: a signature that
 *    another algorithm accepts (`none`; HS256, with the public key as its secret) counts for nothing.
 * 4. It was issued by `zenthos`, to the role `device`, for the device that shows it.
 * 5. It has not expired, was not issued in the future, and lives no longer than our tokens do:
 *    else it could outlive the line that revokes it.
 * 6. A device publishes on zenthos/{model}/{its id}/{telemetry|status|inference|logs}. What it says
 *    there is for ingest to judge, an unknown model included.
 * 7. It receives zenthos/{model}/{its id}/{ota|ack}, and may subscribe with wildcards for what
 *    stands on either side of its id. `$share` and `$SYS` lie outside.
 */
#include "zenthos_auth.h"

#include <jwt.h>
#include <stdlib.h>
#include <string.h>

static const char SERVICE_PREFIX[] = "svc-";
static const char ROOT[] = "zenthos/";
static const char BASE64URL[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char *const UP[] = {"telemetry", "status", "inference", "logs", NULL};
static const char *const DOWN[] = {"ota", "ack", NULL};

bool is_service(const char *username)
{
    return strncmp(username, SERVICE_PREFIX, sizeof SERVICE_PREFIX - 1) == 0;
}

bool is_device_id(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return text[length] == '\0' && length >= 3 && length <= DEVICE_ID_MAX && text[0] != '-';
}

bool is_public_key(const char *pem)
{
    const char *begin = strstr(pem, "-----BEGIN PUBLIC KEY-----");
    return begin != NULL && strstr(begin, "-----END PUBLIC KEY-----") != NULL &&
           strstr(pem, "PRIVATE") == NULL;
}

static bool is_compact(const char *token)
{
    if (strnlen(token, TOKEN_MAX + 1) > TOKEN_MAX)
        return false;
    for (int part = 0; part < 3; part++) {
        size_t length = strspn(token, BASE64URL);
        if (length == 0 || token[length] != (part < 2 ? '.' : '\0'))
            return false;
        token += length + 1;
    }
    return true;
}

static bool says(jwt_t *token, const char *claim, const char *expected)
{
    const char *value = jwt_get_grant(token, claim);
    return value != NULL && strcmp(value, expected) == 0;
}

static const char *check_claims(jwt_t *token, const char *device_id, int64_t now,
                                struct claims *claims)
{
    if (jwt_get_alg(token) != JWT_ALG_ES256)
        return "the algorithm is not ES256";
    if (!says(token, "iss", "zenthos"))
        return "another issuer";
    if (!says(token, "role", "device"))
        return "not a device's token";
    if (!says(token, "sub", device_id))
        return "another device's token";
    /* A claim that is missing or no integer is not above 0 either. */
    claims->issued_at = jwt_get_grant_int(token, "iat");
    claims->expires_at = jwt_get_grant_int(token, "exp");
    if (claims->issued_at <= 0 || claims->expires_at <= 0)
        return "no time of issue or expiry";
    if (claims->expires_at <= now)
        return "expired";
    if (claims->issued_at > now + CLOCK_LEAD_S)
        return "issued in the future";
    if (claims->expires_at - claims->issued_at > TOKEN_LIFE_S)
        return "valid for longer than a device's token may be";
    return NULL;
}

const char *check_token(const char *token, const char *device_id, const struct key *key,
                        int64_t now, struct claims *claims)
{
    jwt_t *decoded = NULL;
    if (!is_compact(token))
        return "not a token";
    if (jwt_decode(&decoded, token, key->pem, (int)key->length) != 0)
        return "not signed by our key";
    const char *problem = check_claims(decoded, device_id, now, claims);
    jwt_free(decoded);
    return problem;
}

/* The last level of zenthos/{any model}/{device_id}/{last}; NULL where a topic is of another form. */
static const char *own_level(const char *device_id, const char *topic)
{
    size_t length = strlen(device_id);
    if (strncmp(topic, ROOT, sizeof ROOT - 1) != 0)
        return NULL;
    const char *slash = strchr(topic + sizeof ROOT - 1, '/');
    if (slash == NULL || strncmp(slash + 1, device_id, length) != 0 || slash[length + 1] != '/')
        return NULL;
    const char *last = slash + length + 2;
    return strchr(last, '/') == NULL ? last : NULL;
}

static bool is_one_of(const char *const *names, const char *name)
{
    while (name != NULL && *names != NULL)
        if (strcmp(*names++, name) == 0)
            return true;
    return false;
}

bool may_publish(const char *device_id, const char *topic)
{
    return is_one_of(UP, own_level(device_id, topic));
}

bool may_receive(const char *device_id, const char *topic)
{
    return is_one_of(DOWN, own_level(device_id, topic));
}

bool may_subscribe(const char *device_id, const char *filter)
{
    return own_level(device_id, filter) != NULL;
}
