/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/fault.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "worker/ovirt/member.h"

/* A fragment of the engine's English text (its AppErrors and VdsmErrors bundles) and what it means.
 * The first match in the order of the table wins. */
struct text_rule {
    const char *fragment;
    enum fault_kind kind;
    enum err_code code;
};

static const struct text_rule conflict_rules[] = {
    /* Held by the caller's own side or for good: these mention locks or snapshots, so come first.
     */
    {"disks snapshots are attached to other VMs", FAULT_FINAL, ERR_CONFLICT},
    {"disks snapshots are plugged to other VMs", FAULT_FINAL, ERR_CONFLICT},
    {"already attached", FAULT_FINAL, ERR_CONFLICT},
    {"previewing a Snapshot", FAULT_FINAL, ERR_CONFLICT},
    /* Locks: another operation goes on and will end. */
    {"Related operation is currently in progress", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"operation is currently in progress", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"Snapshot is currently being created for VM", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"performing an operation on a Snapshot", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is locked. Please try again", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"disks are locked", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"isk is locked", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"being transferred", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"during a backup operation", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"checkpoint removal operation", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"active image transfers", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"backup is not ready", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"migration is in progress", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is being migrated", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is being exported", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is being cloned", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is being imported", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"is being updated", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Image Locked status", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Reboot in Progress status", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Migrating", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Powering", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Wait For Launch", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Saving State", FAULT_LOCK, ERR_ENGINE_BUSY},
    {"because the VM is in Restoring State", FAULT_LOCK, ERR_ENGINE_BUSY},
    /* No room on the proxy VM: its other tasks end, or another proxy does it. */
    {"devices exceeded", FAULT_FINAL, ERR_PROXY_FULL},
    /* Space and names. */
    {"Low disk space", FAULT_FINAL, ERR_NO_SPACE},
    {"already in use", FAULT_FINAL, ERR_EXISTS},
    {"already used by", FAULT_FINAL, ERR_EXISTS},
    {"already exist", FAULT_FINAL, ERR_EXISTS},
    {"create duplicates in target MAC pool", FAULT_FINAL, ERR_EXISTS},
    /* What only people can change. */
    {"Invalid target folder", FAULT_FINAL, ERR_ENGINE_REFUSED},
};

/*
 * A 400 is either a request that the engine will never accept, or a failure while it executed one.
 * What its checks refuse reads "Cannot <do> <thing>. <reason>" (the ACTION_TYPE_FAILED_ and VAR__
 * messages of its AppErrors bundle): the same request is refused again.
 */
static const struct text_rule bad_request_rules[] = {
    {"Internal Engine Error", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"Failed to hot-plug disk", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"Failed to hot-unplug disk", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"General command validation failure", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"Network error during communication", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"Message timeout", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
    {"not authorized", FAULT_FINAL, ERR_ENGINE_DENIED},
    {"syntactically incorrect", FAULT_FINAL, ERR_UNSUPPORTED},
    {"Incomplete parameters", FAULT_FINAL, ERR_UNSUPPORTED},
    {"Snapshot does not exist", FAULT_FINAL, ERR_NOT_FOUND},
    {"does not exist", FAULT_FINAL, ERR_NOT_FOUND},
    {"doesn't exist", FAULT_FINAL, ERR_NOT_FOUND},
    {"Entity not found", FAULT_FINAL, ERR_NOT_FOUND},
    /* Somebody changed the VM since it was looked at; another look may well do. */
    {"are not attached to the VM", FAULT_FINAL, ERR_CONFLICT},
    {"VM is not running", FAULT_FINAL, ERR_CONFLICT},
    {"because the VM is in", FAULT_FINAL, ERR_CONFLICT},
    {"Cannot ", FAULT_FINAL, ERR_ENGINE_REFUSED},
};

/* Which right a refused call wants: the engine's action groups. */
static const struct {
    const char *method, *part, *permit;
} permits[] = {
    {"POST", "/snapshots", "MANIPULATE_VM_SNAPSHOTS on the VM"},
    {"DELETE", "/snapshots/", "MANIPULATE_VM_SNAPSHOTS on the VM"},
    {"POST", "/diskattachments", "CONFIGURE_VM_STORAGE on the VM and ATTACH_DISK on the disk"},
    {"PUT", "/diskattachments/", "CONFIGURE_VM_STORAGE on the VM"},
    {"DELETE", "/diskattachments/", "CONFIGURE_VM_STORAGE on the VM"},
    {"POST", "/freezefilesystems", "CONFIGURE_VM_STORAGE on the VM"},
    {"POST", "/thawfilesystems", "CONFIGURE_VM_STORAGE on the VM"},
    {"POST", "/backups", "BACKUP_DISK on the VM and its disks"},
    {"DELETE", "/checkpoints/", "BACKUP_DISK on the VM and its disks"},
    {"POST", "/nics", "CONFIGURE_VM_NETWORK on the VM"},
    {"POST", "/start", "RUN_VM on the VM"},
    {"DELETE", "disks/", "DELETE_DISK on the disk"},
    {"POST", "disks", "CREATE_DISK on the storage domain"},
    {"PUT", "vms/", "EDIT_VM_PROPERTIES on the VM"},
    {"DELETE", "vms/", "DELETE_VM on the VM"},
    {"POST", "vms", "CREATE_VM on the cluster (IMPORT_EXPORT_VM for a restore from an OVF)"},
};

static void match(const struct text_rule *rules, size_t count, struct fault *ret)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasestr(ret->text, rules[i].fragment)) {
            ret->kind = rules[i].kind;
            ret->code = rules[i].code;
            return;
        }
    }
}

static void one_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
    }
}

static bool is_json(const char *content_type)
{
    return content_type && strncasecmp(content_type, "application/json", 16) == 0;
}

/* reason and detail of a fault, plain or nested in an action. */
static void read_text(long status, const char *content_type, struct slice body, struct fault *ret)
{
    json_auto_t *json =
        is_json(content_type) ? json_loadb(body.data, body.len, JSON_DECODE_ANY, NULL) : NULL;
    const json_t *nested = member_object(json, "fault");
    const json_t *fault = nested ? nested : json;
    const char *reason = member_str(fault, "reason");
    const char *detail = member_str(fault, "detail");
    if (reason || detail)
        (void)snprintf(ret->text, sizeof ret->text, "%ld %s%s%s", status, reason ? reason : "",
                       reason && detail ? ": " : "", detail ? detail : "");
    else if (body.len == 0 || json)
        (void)snprintf(ret->text, sizeof ret->text, "HTTP status %ld", status);
    else
        (void)snprintf(ret->text, sizeof ret->text,
                       "HTTP status %ld with a page of type %s instead of the API's answer", status,
                       content_type ? content_type : "(none)");
    one_line(ret->text);
}

static void set(struct fault *ret, enum fault_kind kind, enum err_code code)
{
    ret->kind = kind;
    ret->code = code;
}

static void classify_server_error(long status, bool page, struct fault *ret)
{
    if (page || status == 502 || status == 503 || status == 504)
        set(ret, FAULT_RESTART, ERR_ENGINE_BUSY);
    else
        set(ret, FAULT_TRANSIENT, ERR_ENGINE_FAULT);
}

void fault_classify(long status, const char *content_type, struct slice body, struct fault *ret)
{
    *ret = (struct fault){.kind = FAULT_FINAL, .code = ERR_ENGINE_FAULT};
    bool page = body.len > 0 && !is_json(content_type);
    read_text(status, content_type, body, ret);
    if (status >= 200 && status < 300) {
        set(ret, page ? FAULT_RESTART : FAULT_NONE, page ? ERR_ENGINE_BUSY : ERR_NONE);
        return;
    }
    switch (status) {
    case 400:
        match(bad_request_rules, ARRAY_LEN(bad_request_rules), ret);
        break;
    case 401:
        set(ret, FAULT_LOGIN, ERR_ENGINE_AUTH);
        break;
    case 403:
        set(ret, FAULT_FINAL, ERR_ENGINE_DENIED);
        break;
    case 404:
        set(ret, page ? FAULT_GONE_PAGE : FAULT_GONE, ERR_NOT_FOUND);
        break;
    case 405:
        set(ret, FAULT_FINAL, ERR_UNSUPPORTED);
        break;
    case 409:
        ret->code = ERR_CONFLICT;
        match(conflict_rules, ARRAY_LEN(conflict_rules), ret);
        break;
    case 429:
        set(ret, FAULT_RESTART, ERR_ENGINE_BUSY);
        break;
    default:
        if (status >= 500)
            classify_server_error(status, page, ret);
        else if (status < 400)
            set(ret, FAULT_FINAL, ERR_ENGINE_PROTOCOL);
        break;
    }
}

const char *fault_permit(const char *method, const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(permits); i++) {
        if (strcmp(method, permits[i].method) == 0 && strstr(path, permits[i].part))
            return permits[i].permit;
    }
    return "a role that covers this";
}

bool fault_is_already_attached(const struct err *err)
{
    return err->sys == 409 && strcasestr(err->message, "already attached");
}

bool fault_is_mac_taken(const struct err *err)
{
    return err->sys == 409 &&
           (strcasestr(err->message, "MAC Address") || strcasestr(err->message, "MAC pool"));
}
