#include "io/room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

/* statfs(2), linux/magic.h, and what parallel file systems say of themselves. */
static const unsigned long network_types[] = {
    0x6969,     /* NFS */
    0x517B,     /* SMB */
    0xFF534D42, /* CIFS */
    0xFE534D42, /* SMB 2 */
    0x0BD00BD0, /* Lustre */
    0x47504653, /* GPFS */
    0x19830326, /* BeeGFS */
    0x00C36400, /* Ceph */
    0x5346414F, /* AFS */
    0x7461636F, /* OCFS2 */
    0x01161970, /* GFS2 */
    0x20030528, /* OrangeFS */
    0xAAD7AAEA, /* PanFS */
};

static bool is_of_network(const char *path)
{
    struct statfs info;
    if (statfs(path, &info) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof network_types / sizeof network_types[0]; i++) {
        if (((unsigned long)info.f_type & 0xFFFFFFFFu) == network_types[i]) {
            return true;
        }
    }
    return false;
}

/* Cuts the last part off a path: "." is what is left of a plain name, "/" of one below the root. */
static void cut_last_part(char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    if (n == 0) {
        path[n++] = '.';
    }
    path[n] = '\0';
}

/* 0, or why the directory cannot be: errno. `path` becomes what of it is there. */
static int find_existing(char *path)
{
    struct stat info;
    struct stat link;
    while (stat(path, &info) != 0) {
        if (errno != ENOENT || lstat(path, &link) == 0) { /* a link to nothing is nothing to be made */
            return errno != 0 ? errno : ENOENT;
        }
        cut_last_part(path);
    }
    if (!S_ISDIR(info.st_mode)) {
        return ENOTDIR;
    }
    return access(path, W_OK | X_OK) == 0 ? 0 : errno;
}

qr_status qr_io_probe_room(const char *directory, const char *what, qr_io_room *out)
{
    struct statvfs room;
    struct stat info;
    qr_status status = QR_OK;
    char *path = strdup(directory);
    if (path == NULL) {
        return qr_error_memory(strlen(directory), "a path");
    }
    int error = find_existing(path);
    if (error == 0 && (statvfs(path, &room) != 0 || stat(path, &info) != 0)) {
        error = errno;
    }
    if (error == 0) {
        unsigned long block = room.f_frsize > 0 ? room.f_frsize : room.f_bsize;
        uint64_t most = block > 0 ? (uint64_t)INT64_MAX / block : 0;
        *out = (qr_io_room){.free_bytes = (int64_t)((room.f_bavail < most ? room.f_bavail : most) * block),
                            .device = (uint64_t)info.st_dev,
                            .is_shared = is_of_network(path)};
    } else {
        bool whole = strcmp(path, directory) == 0 && error != ENOENT;
        status = qr_error(QR_ENVIRONMENT, "%s: the %s directory cannot be %s: %s", directory, what,
                          whole && error != ENOTDIR ? "written to" : "made",
                          error == ENOTDIR ? "it, or what it is to be in, is not a directory" : strerror(error));
    }
    free(path);
    return status;
}
