/* Files that others replace while the broker runs. */
#include "zenthos_auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool has_changed(struct watched *file)
{
    struct stat now, before = file->seen;
    if (stat(file->path, &now) != 0)
        memset(&now, 0, sizeof now);
    file->seen = now;
    return now.st_dev != before.st_dev || now.st_ino != before.st_ino ||
           now.st_size != before.st_size || now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != before.st_mtim.tv_nsec;
}

static char *read_stream(FILE *stream, size_t max_bytes, size_t *length)
{
    struct stat status;
    if (fstat(fileno(stream), &status) != 0)
        return NULL;
    if (!S_ISREG(status.st_mode) || status.st_size < 0 || (uintmax_t)status.st_size > max_bytes) {
        errno = EFBIG;
        return NULL;
    }
    char *content = malloc((size_t)status.st_size + 1);
    if (content == NULL)
        return NULL;
    *length = fread(content, 1, (size_t)status.st_size, stream);
    content[*length] = '\0';
    if (ferror(stream) || strlen(content) != *length) { /* no text of ours holds a NUL */
        free(content);
        errno = EINVAL;
        return NULL;
    }
    return content;
}

char *read_whole(const char *path, size_t max_bytes, size_t *length)
{
    FILE *stream = fopen(path, "rbe");
    if (stream == NULL)
        return NULL;
    char *content = read_stream(stream, max_bytes, length);
    int problem = errno;
    fclose(stream);
    errno = problem;
    return content;
}
