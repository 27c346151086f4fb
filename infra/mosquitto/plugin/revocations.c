/* The list of void tokens: zenthos_core/revocations.py writes it, a line for each device. */
#include "zenthos_auth.h"

#include <stdlib.h>
#include <string.h>

#define SECOND_DIGITS_MAX 12

static int compare(const void *left, const void *right)
{
    const struct revocation *a = left, *b = right;
    return strcmp(a->device_id, b->device_id);
}

/* Where the next line begins, or NULL where this one is none of ours. */
static const char *parse_line(const char *line, struct revocation *entry)
{
    size_t length = strcspn(line, " \n");
    if (line[length] != ' ' || length > DEVICE_ID_MAX)
        return NULL;
    memcpy(entry->device_id, line, length);
    entry->device_id[length] = '\0';
    const char *second = line + length + 1;
    size_t digits = strspn(second, "0123456789");
    if (!is_device_id(entry->device_id) || digits == 0 || digits > SECOND_DIGITS_MAX)
        return NULL;
    entry->before = strtoll(second, NULL, 10);
    if (second[digits] == '\n')
        return second + digits + 1;
    return second[digits] == '\0' ? second + digits : NULL;
}

static size_t count_lines(const char *text)
{
    size_t lines = 1;
    while ((text = strchr(text, '\n')) != NULL) {
        lines++;
        text++;
    }
    return lines;
}

/* Of a device that is listed twice, the later second counts. */
static size_t merge(struct revocation *entries, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || compare(&entries[kept - 1], &entries[i]) != 0)
            entries[kept++] = entries[i];
        else if (entries[kept - 1].before < entries[i].before)
            entries[kept - 1].before = entries[i].before;
    }
    return kept;
}

long parse_revocations(struct revocations *list, const char *text)
{
    struct revocation *entries = calloc(count_lines(text), sizeof *entries);
    size_t count = 0;
    if (entries == NULL)
        return -1;
    while (*text != '\0') {
        text = parse_line(text, &entries[count++]);
        if (text == NULL) {
            free(entries);
            return (long)count;
        }
    }
    qsort(entries, count, sizeof *entries, compare);
    free(list->entries);
    list->entries = entries;
    list->count = merge(entries, count);
    return 0;
}

int64_t revoked_before(const struct revocations *list, const char *device_id)
{
    struct revocation wanted = {.before = 0};
    strncpy(wanted.device_id, device_id, DEVICE_ID_MAX);
    const struct revocation *found =
        list->count == 0
            ? NULL
            : bsearch(&wanted, list->entries, list->count, sizeof wanted, compare);
    return found == NULL ? 0 : found->before;
}
