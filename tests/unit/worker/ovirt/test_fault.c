/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's own texts and what they mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "worker/ovirt/fault.h"

static const char JSON[] = "application/json;charset=utf-8";
static const char HTML[] = "text/html; charset=UTF-8";

static struct fault classify(long status, const char *type, const char *body)
{
    struct fault f;
    fault_classify(status, type, (struct slice){.data = body, .len = strlen(body)}, &f);
    return f;
}

static void conflict_texts(void **state)
{
    (void)state;
    static const struct {
        const char *detail;
        enum fault_kind kind;
        enum err_code code;
    } cases[] = {
        {"[Cannot create Snapshot. Related operation is currently in progress. Please try again "
         "later.]",
         FAULT_LOCK, ERR_ENGINE_BUSY},
        {"[Cannot create Snapshot. Snapshot is currently being created for VM web01.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot remove Snapshot. The VM is performing an operation on a Snapshot. Please wait "
         "for "
         "the operation to finish, and try again.]",
         FAULT_LOCK, ERR_ENGINE_BUSY},
        {"[Cannot create Snapshot: VM is locked. Please try again in a few minutes.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot create Snapshot: The following disks are locked: A,B. Please try again in a few "
         "minutes.]",
         FAULT_LOCK, ERR_ENGINE_BUSY},
        {"[Cannot remove Virtual Disk: Disk is locked. Please try again later.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot attach Virtual Disk. Disk d1 is being transferred.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot remove Snapshot. The VM is during a backup operation.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot create Snapshot. VM web01 is being migrated.]", FAULT_LOCK, ERR_ENGINE_BUSY},
        {"[Cannot remove Snapshot because the VM is in Image Locked status.]", FAULT_LOCK,
         ERR_ENGINE_BUSY},
        {"[Cannot remove Snapshot because the VM is in Suspended status.]", FAULT_FINAL,
         ERR_CONFLICT},
        {"[Cannot remove Snapshot. The following VM's disks snapshots are attached to other VMs "
         "(Disk Alias/Snapshot Description/VM attached to):\n\n d1/oxbow/proxy]",
         FAULT_FINAL, ERR_CONFLICT},
        {"[Cannot attach Virtual Disk. The disk is already attached to VM.]", FAULT_FINAL,
         ERR_CONFLICT},
        {"[Cannot attach Virtual Disk. The disk is not shareable and is already attached to a VM.]",
         FAULT_FINAL, ERR_CONFLICT},
        {"[Cannot create Snapshot. VM is previewing a Snapshot.]", FAULT_FINAL, ERR_CONFLICT},
        {"[Cannot attach Virtual Disk. Maximum PCI devices exceeded.]", FAULT_FINAL,
         ERR_PROXY_FULL},
        {"[Cannot create Snapshot. Low disk space on Storage Domain data1.]", FAULT_FINAL,
         ERR_NO_SPACE},
        {"[Cannot add VM. The VM name is already in use, please choose a unique name and try "
         "again.]",
         FAULT_FINAL, ERR_EXISTS},
        {"[Cannot export VM. Invalid target folder: /mnt/ova on Host.]", FAULT_FINAL,
         ERR_ENGINE_REFUSED},
        {"[Import VM failed - VM Name already exists in the Data Center.]", FAULT_FINAL,
         ERR_EXISTS},
        {"[MAC Address 56:6f:00:00:00:01 is already in use by VM or snapshot: web01.]", FAULT_FINAL,
         ERR_EXISTS},
        {"[Cannot add Virtual Disk. The selected disk ID: 1 is already used by the following "
         "existing disk: d.]",
         FAULT_FINAL, ERR_EXISTS},
        {"[Something that nobody has seen before.]", FAULT_FINAL, ERR_CONFLICT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_auto_t *json =
            json_pack("{s:s, s:s}", "reason", "Operation Failed", "detail", cases[i].detail);
        SCOPED_FREE char *body = json_dumps(json, 0);
        struct fault f = classify(409, JSON, body);
        if (f.kind != cases[i].kind || f.code != cases[i].code)
            fail_msg("%s: kind %d code %s", cases[i].detail, (int)f.kind, err_code_name(f.code));
        assert_true(strncmp(f.text, "409 Operation Failed: [", 23) == 0);
        assert_null(strchr(f.text, '\n'));
    }
}

static void faults_of_actions_are_nested(void **state)
{
    (void)state;
    struct fault f = classify(
        409, JSON,
        "{\"status\":\"failed\",\"fault\":{\"reason\":\"Operation Failed\",\"detail\":"
        "\"[Cannot freeze Filesystems. VM is locked. Please try again in a few minutes.]\"}}");
    assert_int_equal(f.kind, FAULT_LOCK);
    assert_non_null(strstr(f.text, "VM is locked"));
}

static void statuses(void **state)
{
    (void)state;
    static const struct {
        long status;
        const char *type, *body;
        enum fault_kind kind;
        enum err_code code;
    } cases[] = {
        {200, JSON, "{}", FAULT_NONE, ERR_NONE},
        {201, NULL, "", FAULT_NONE, ERR_NONE},
        {200, HTML, "<html>maintenance</html>", FAULT_RESTART, ERR_ENGINE_BUSY},
        {302, HTML, "<html>moved</html>", FAULT_FINAL, ERR_ENGINE_PROTOCOL},
        {400, JSON, "{\"reason\":\"Request syntactically incorrect.\",\"detail\":\"x\"}",
         FAULT_FINAL, ERR_UNSUPPORTED},
        {400, JSON, "{\"reason\":\"Operation Failed\",\"detail\":\"[Internal Engine Error]\"}",
         FAULT_TRANSIENT, ERR_ENGINE_FAULT},
        {400, JSON, "{\"detail\":\"Failed to hot-plug disk\"}", FAULT_TRANSIENT, ERR_ENGINE_FAULT},
        {400, JSON, "{\"detail\":\"[Cannot attach Virtual Disk. VM's Snapshot does not exist.]\"}",
         FAULT_FINAL, ERR_NOT_FOUND},
        {400, JSON,
         "{\"detail\":\"[Cannot attach Virtual Disk. The VM's Snapshot doesn't exist.]\"}",
         FAULT_FINAL, ERR_NOT_FOUND},
        {400, JSON,
         "{\"detail\":\"[Cannot create Snapshot. The snapshot of the following disk(s) is "
         "not supported: d1.]\"}",
         FAULT_FINAL, ERR_ENGINE_REFUSED},
        {400, JSON,
         "{\"detail\":\"[Cannot create Snapshot. The following disk(s) are not attached to "
         "the VM: d1.]\"}",
         FAULT_FINAL, ERR_CONFLICT},
        {400, JSON, "{\"detail\":\"[General command validation failure.]\"}", FAULT_TRANSIENT,
         ERR_ENGINE_FAULT},
        {400, JSON, "{\"detail\":\"User is not authorized to perform this action.\"}", FAULT_FINAL,
         ERR_ENGINE_DENIED},
        {400, JSON, "{\"detail\":\"[Something else.]\"}", FAULT_FINAL, ERR_ENGINE_FAULT},
        {401, HTML, "<html>Unauthorized</html>", FAULT_LOGIN, ERR_ENGINE_AUTH},
        {401, NULL, "", FAULT_LOGIN, ERR_ENGINE_AUTH},
        {403, JSON, "{\"detail\":\"User is not authorized to perform this action.\"}", FAULT_FINAL,
         ERR_ENGINE_DENIED},
        {404, NULL, "", FAULT_GONE, ERR_NOT_FOUND},
        {404, JSON, "{\"detail\":\"Entity not found: 1\"}", FAULT_GONE, ERR_NOT_FOUND},
        {404, HTML, "<html>404</html>", FAULT_GONE_PAGE, ERR_NOT_FOUND},
        {405, NULL, "", FAULT_FINAL, ERR_UNSUPPORTED},
        {429, NULL, "", FAULT_RESTART, ERR_ENGINE_BUSY},
        {500, JSON, "{\"reason\":\"Operation Failed\",\"detail\":\"x\"}", FAULT_TRANSIENT,
         ERR_ENGINE_FAULT},
        {500, HTML, "<html>x</html>", FAULT_RESTART, ERR_ENGINE_BUSY},
        {502, HTML, "<html>x</html>", FAULT_RESTART, ERR_ENGINE_BUSY},
        {503, NULL, "", FAULT_RESTART, ERR_ENGINE_BUSY},
        {504, JSON, "{}", FAULT_RESTART, ERR_ENGINE_BUSY},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fault f = classify(cases[i].status, cases[i].type, cases[i].body);
        if (f.kind != cases[i].kind || f.code != cases[i].code)
            fail_msg("%ld %s: kind %d code %s", cases[i].status, cases[i].body, (int)f.kind,
                     err_code_name(f.code));
    }
}

static void bodies_are_never_trusted(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{", "[]", "\"text\"", "{\"reason\":5}", "null", "{\"fault\":[]}", "\xff\xfe"};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct fault f = classify(409, JSON, bodies[i]);
        assert_int_equal(f.kind, FAULT_FINAL);
        assert_int_equal(f.code, ERR_CONFLICT);
        assert_non_null(strstr(f.text, "409"));
    }
    char *big = xmalloc(20001);
    memset(big, 'x', 20000);
    big[20000] = '\0';
    SCOPED_FREE char *body = xasprintf("{\"reason\":\"r\",\"detail\":\"%s\"}", big);
    struct fault f = classify(409, JSON, body);
    assert_true(strlen(f.text) < FAULT_TEXT_BYTES);
    free(big);
}

static void texts_that_callers_ask_for(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_CONFLICT, 409, "The disk is already attached to VM.");
    assert_true(fault_is_already_attached(&err));
    assert_false(fault_is_mac_taken(&err));
    err_clear(&err);
    err_set(&err, ERR_EXISTS, 409, "MAC Address 56:6f is already in use by VM or snapshot: x.");
    assert_true(fault_is_mac_taken(&err));
    err.sys = 400;
    assert_false(fault_is_mac_taken(&err));
}

static void permits_are_named(void **state)
{
    (void)state;
    assert_non_null(strstr(fault_permit("POST", "vms/1/snapshots"), "MANIPULATE_VM_SNAPSHOTS"));
    assert_non_null(strstr(fault_permit("DELETE", "vms/1/snapshots/2"), "MANIPULATE_VM_SNAPSHOTS"));
    assert_non_null(strstr(fault_permit("POST", "vms/1/diskattachments"), "ATTACH_DISK"));
    assert_non_null(strstr(fault_permit("DELETE", "vms/1/diskattachments/2"), "CONFIGURE_VM"));
    assert_non_null(strstr(fault_permit("POST", "disks"), "CREATE_DISK"));
    assert_non_null(strstr(fault_permit("DELETE", "disks/1"), "DELETE_DISK"));
    assert_non_null(strstr(fault_permit("POST", "vms"), "CREATE_VM"));
    assert_non_null(strstr(fault_permit("DELETE", "vms/1"), "DELETE_VM"));
    assert_non_null(strstr(fault_permit("GET", "vms/1"), "role"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conflict_texts),
        cmocka_unit_test(faults_of_actions_are_nested),
        cmocka_unit_test(statuses),
        cmocka_unit_test(bodies_are_never_trusted),
        cmocka_unit_test(texts_that_callers_ask_for),
        cmocka_unit_test(permits_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
