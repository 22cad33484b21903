/* SPDX-License-Identifier: Apache-2.0 */
/* The devices: attached disks must appear by their id, must be readable, and nothing on this
 * machine may touch what is on them. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <unistd.h>

#include "worker/doctor/check.h"

static enum finding_level not_ours(struct buf *say)
{
    (void)buf_printf(say, "device_dir is not below /dev: nothing to look at");
    return FINDING_OK;
}

static bool exists(const struct doctor *d, const char *path)
{
    SCOPED_FREE char *full = doctor_path(d, path);
    return access(full, F_OK) == 0;
}

static enum finding_level check_directory(struct doctor *d, struct buf *say)
{
    if (access(d->conf->device_dir, R_OK | X_OK) == 0) {
        (void)buf_printf(say, "%s is there", d->conf->device_dir);
        return FINDING_OK;
    }
    int error = errno;
    SCOPED_FREE char *of_udev = doctor_path(d, "/dev/disk/by-id");
    if (error == ENOENT && strcmp(d->conf->device_dir, of_udev) == 0) {
        (void)buf_printf(say, "udev makes %s with the first disk", d->conf->device_dir);
        return FINDING_OK;
    }
    (void)buf_printf(say, "%s: %s: no attached disk can be found", d->conf->device_dir,
                     strerror(error));
    return FINDING_FAILURE;
}

static enum finding_level check_udev(struct doctor *d, struct buf *say)
{
    if (!doctor_has_devices(d))
        return not_ours(say);
    bool runs = exists(d, "/run/udev/control");
    (void)buf_printf(say, runs ? "udev runs"
                               : "udev does not run: nobody makes links to disks by their id");
    return runs ? FINDING_OK : FINDING_FAILURE;
}

/* --- Rights ---------------------------------------------------------------------------------- */
/* The first device in the directory that we may not read and write; the caller frees. access() and
 * not open(): an open device is in the way of a detach. */
static char *first_forbidden(const char *dir_path, size_t *ret_seen)
{
    DIR *dir = opendir(dir_path);
    const struct dirent *entry;
    char *found = NULL;
    *ret_seen = 0;
    while (dir && !found && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        ++*ret_seen;
        if (faccessat(dirfd(dir), entry->d_name, R_OK | W_OK, AT_EACCESS) != 0 && errno == EACCES)
            found = xstrdup(entry->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

static bool is_in_group(const char *name)
{
    const struct group *group = getgrnam(name);
    gid_t groups[256];
    int count = getgroups(256, groups);
    if (!group)
        return false;
    for (int i = 0; i < count; i++) {
        if (groups[i] == group->gr_gid)
            return true;
    }
    return getegid() == group->gr_gid;
}

static enum finding_level check_rights(struct doctor *d, struct buf *say)
{
    size_t seen = 0;
    SCOPED_FREE char *forbidden = first_forbidden(d->conf->device_dir, &seen);
    if (forbidden) {
        (void)buf_printf(say, "%s/%s may not be opened for reading and writing",
                         d->conf->device_dir, forbidden);
        return FINDING_FAILURE;
    }
    if (seen > 0) {
        (void)buf_printf(say, "all %zu devices may be opened", seen);
        return FINDING_OK;
    }
    if (!doctor_has_devices(d) || geteuid() == 0 || is_in_group("disk")) {
        (void)buf_printf(say, "there is no device to try; the account has the right");
        return FINDING_OK;
    }
    (void)buf_printf(say, "there is no device to try, and the account is not in the group disk");
    return FINDING_WARNING;
}

/* --- LVM ------------------------------------------------------------------------------------- */
/* The value of `key = ...` in lvm.conf, comments left out: up to the line's end or, for a list, its
 * bracket. NULL when it is not set. The caller frees. */
static char *lvm_setting(const char *text, const char *key)
{
    size_t key_len = strlen(key);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *at = line + strspn(line, " \t");
        if (strncmp(at, key, key_len) != 0)
            continue;
        at += key_len;
        at += strspn(at, " \t");
        if (*at != '=')
            continue;
        at += 1 + strspn(at + 1, " \t");
        return xstrndup(at, *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, "\n#"));
    }
    return NULL;
}

static bool is_off(const char *value)
{
    return value && *value == '0';
}

/* An entry like "r|.*|": everything that was not accepted before is refused. */
static bool refuses_the_rest(const char *filter)
{
    for (const char *at = filter; at && (at = strstr(at, "\"r")) != NULL; at += 2) {
        char mark = at[2];
        if (mark && !isalnum((unsigned char)mark) &&
            (strncmp(at + 3, ".*", 2) == 0 || strncmp(at + 3, "^.*", 3) == 0))
            return true;
    }
    return false;
}

/* LVM 2.03.12 and later: only the devices in this file are looked at. */
static bool has_devices_file(const struct doctor *d, const char *text)
{
    SCOPED_FREE char *use = lvm_setting(text, "use_devicesfile");
    return exists(d, "/etc/lvm/devices/system.devices") && !is_off(use);
}

static enum finding_level check_lvm(struct doctor *d, struct buf *say)
{
    if (!doctor_has_devices(d))
        return not_ours(say);
    SCOPED_FREE char *text = doctor_read_file(d, "/etc/lvm/lvm.conf");
    if (!text && !exists(d, "/usr/sbin/lvm") && !exists(d, "/sbin/lvm")) {
        (void)buf_printf(say, "there is no LVM here");
        return FINDING_OK;
    }
    const char *settings = text ? text : "";
    if (has_devices_file(d, settings)) {
        (void)buf_printf(say, "LVM looks only at the devices of system.devices");
        return FINDING_OK;
    }
    SCOPED_FREE char *global = lvm_setting(settings, "global_filter");
    if (refuses_the_rest(global)) {
        (void)buf_printf(say, "LVM's global_filter refuses other machines' disks");
        return FINDING_OK;
    }
    SCOPED_FREE char *activation = lvm_setting(settings, "event_activation");
    SCOPED_FREE char *volumes = lvm_setting(settings, "auto_activation_volume_list");
    if (is_off(activation) || (volumes && !strchr(volumes, '"'))) {
        (void)buf_printf(say, "LVM activates nothing by itself, but sees the disks of the VMs that "
                              "are backed up: a command by hand may activate them");
        return FINDING_WARNING;
    }
    (void)buf_printf(say,
                     "LVM may activate the volume groups of VMs that are backed up: their disks "
                     "stay busy and cannot be detached, and their contents are written to");
    return FINDING_FAILURE;
}

/* --- Others that grab disks ------------------------------------------------------------------ */
static bool is_said(const char *text, const char *word)
{
    for (const char *line = text; line && *line;
         line += strcspn(line, "\n"), line += *line == '\n') {
        const char *at = line + strspn(line, " \t");
        SCOPED_FREE char *one = xstrndup(at, strcspn(at, "\n#!"));
        if (strstr(one, word))
            return true;
    }
    return false;
}

static enum finding_level check_multipath(struct doctor *d, struct buf *say)
{
    if (!doctor_has_devices(d))
        return not_ours(say);
    if (!exists(d, "/run/multipathd.pid") && !exists(d, "/run/multipathd.socket") &&
        !exists(d, "/etc/multipath.conf")) {
        (void)buf_printf(say, "multipath is not used here");
        return FINDING_OK;
    }
    SCOPED_FREE char *text = doctor_read_file(d, "/etc/multipath.conf");
    if (is_said(text, "blacklist") &&
        (is_said(text, "devnode \".*\"") || is_said(text, "devnode \"*\""))) {
        (void)buf_printf(say, "multipath leaves all disks alone");
        return FINDING_OK;
    }
    (void)buf_printf(say,
                     "multipath may take over disks that are attached to this VM: they are busy "
                     "then and cannot be detached");
    return FINDING_WARNING;
}

static enum finding_level check_raid(struct doctor *d, struct buf *say)
{
    if (!doctor_has_devices(d))
        return not_ours(say);
    if (!exists(d, "/usr/sbin/mdadm") && !exists(d, "/sbin/mdadm")) {
        (void)buf_printf(say, "there is no mdadm here");
        return FINDING_OK;
    }
    SCOPED_FREE char *debian = doctor_read_file(d, "/etc/mdadm/mdadm.conf");
    SCOPED_FREE char *other = doctor_read_file(d, "/etc/mdadm.conf");
    if (is_said(debian, "AUTO -all") || is_said(other, "AUTO -all")) {
        (void)buf_printf(say, "mdadm assembles nothing by itself");
        return FINDING_OK;
    }
    (void)buf_printf(say, "mdadm may assemble the RAID sets of VMs that are backed up");
    return FINDING_WARNING;
}

static const struct check rows[] = {
    {"device.directory", check_directory,
     "correct `device_dir` in worker.yaml; normally it is /dev/disk/by-id", NULL, false},
    {"device.udev", check_udev, "start systemd-udevd; a container needs the host's /run/udev", NULL,
     false},
    {"device.rights", check_rights,
     "put the account into the group disk, and look at DeviceAllow= in the unit",
     "device.directory", false},
    {"device.lvm", check_lvm,
     "set global_filter = [ \"a|^/dev/vda|\", \"r|.*|\" ] in /etc/lvm/lvm.conf (the proxy's own "
     "disk "
     "alone), renew the initramfs, reboot: docs/operations.md, section 4",
     NULL, false},
    {"device.multipath", check_multipath,
     "put blacklist { devnode \".*\" } into /etc/multipath.conf, or remove multipath", NULL, false},
    {"device.raid", check_raid, "put the line AUTO -all into mdadm.conf and renew the initramfs",
     NULL, false},
};
const struct check_table checks_of_devices = CHECK_TABLE(rows);
