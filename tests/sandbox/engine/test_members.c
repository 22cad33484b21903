/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "tests/sandbox/engine/members.h"

#define V43 MEMBERS_VERSION(4, 3, 10)
#define V44 MEMBERS_VERSION(4, 4, 2)
#define V45 MEMBERS_VERSION(4, 5, 5)

struct example {
    const char *type;
    int version;
    const char *body;
    const char *fault; /* part of the message; NULL = it is fine */
};

static const struct example examples[] = {
    {"Snapshot", V45, "{'description':'x','persist_memorystate':'false'}", NULL},
    {"Snapshot", V45, "{'description':'x','persist_memorystate':false}", NULL},
    {"Snapshot", V45, "{'description':'x','persist_memorystate':'nein'}", "not a boolean"},
    {"Snapshot", V45, "{'descripton':'x'}", "descripton: unknown member"},
    {"Snapshot", V45, "{'disk_attachments':{'disk_attachment':[{'disk':{'id':'a'}}]}}", NULL},
    {"Snapshot", V45, "{'disk_attachments':{}}", NULL},
    {"Snapshot", V45, "{'disk_attachments':[]}", "not a list wrapper"},
    {"Snapshot", V45, "{'disk_attachments':{'disks':[]}}", "unknown member in the list wrapper"},
    {"Snapshot", V45, "{'disk_attachments':{'disk_attachment':[{'dsk':{}}]}}",
     "disk_attachments.dsk: unknown member"},
    {"DiskAttachment", V45,
     "{'active':'true','interface':'virtio_scsi','disk':{'id':'a','snapshot':{'id':'b'}}}", NULL},
    {"DiskAttachment", V45, "{'interface':'virtio-scsi'}", "unknown enumeration constant"},
    {"DiskAttachment", V45, "{'interface':'virtio_scs'}", "unknown enumeration constant"},
    {"DiskAttachment", V45, "{'interface':''}", "unknown enumeration constant"},
    {"Disk", V45, "{'provisioned_size':1024,'format':'cow'}", NULL},
    {"Disk", V45, "{'provisioned_size':'1024'}", NULL},
    {"Disk", V45, "{'provisioned_size':'1024k'}", "not an integer"},
    {"Disk", V45, "{'provisioned_size':''}", "not an integer"},
    {"Disk", V45, "{'provisioned_size':10.5}", "not an integer"},
    {"Disk", V45, "{'storage_domains':{'storage_domain':[{'id':'a'}]}}", NULL},
    /* What an older engine does not know yet. */
    {"ImageTransfer", V43, "{'format':'raw'}", NULL},
    {"ImageTransfer", V43, "{'shallow':'true'}", "shallow: unknown member"},
    {"ImageTransfer", V44, "{'shallow':'true'}", "shallow: unknown member"},
    {"ImageTransfer", V45, "{'shallow':'true','timeout_policy':'cancel'}", NULL},
    {"Vm", V43, "{'tpm_enabled':'true'}", "tpm_enabled: unknown member"},
    {"Vm", V45, "{'tpm_enabled':'true'}", NULL},
    {"Vm", V45,
     "{'name':'x','cluster':{'name':'c'},'os':{'type':'other','boot':{'devices':{'device':['hd',"
     "'network']}}},'cpu':{'topology':{'sockets':2}}}",
     NULL},
    {"Vm", V45, "{'os':{'boot':{'devices':{'device':['floppy']}}}}", "unknown enumeration"},
    {"Vm", V45, "{'custom_properties':{'custom_property':[{'name':'a','value':'b'}]}}", NULL},
    {"Vm", V45, "{'initialization':{'configuration':{'type':'ovf','data':'<x/>'}}}", NULL},
    {"Vm", V45, "{'initialization':{'configuration':{'type':'zip'}}}", "unknown enumeration"},
    {"Vm", V45, "{'name':null}", NULL},
    {"Vm", V45, "{'memory':{}}", "not an integer"},
    {"Vm", V45, "{'cluster':'c'}", "not an object"},
    {"Action", V45, "{}", NULL},
    {"Action", V45, "{'async':'true','grace_period':{'expiry':'10'}}", NULL},
    {"Action", V45, "{'asink':'true'}", "unknown member"},
    {"Tag", V45, "{'name':'a','parent':{'name':'root'}}", NULL},
    {"Nic", V45, "{'name':'a','mac':{'address':'56:6f:00:00:00:01'},'linked':'TRUE'}", NULL},
};

static json_t *parse(const char *quoted)
{
    SCOPED_FREE char *text = xstrdup(quoted);
    for (char *at = text; *at; at++)
        if (*at == '\'')
            *at = '"';
    json_t *body = json_loads(text, 0, NULL);
    assert_non_null(body);
    return body;
}

static void checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        const struct example *x = &examples[i];
        struct err err = ERR_INIT;
        json_t *body = parse(x->body);
        bool ok = members_check(x->type, x->version, body, &err);
        json_decref(body);
        if (ok != (x->fault == NULL))
            fail_msg("%s %s: %s", x->type, x->body, ok ? "was taken" : err.message);
        if (!ok && !strstr(err.message, x->fault))
            fail_msg("%s: says '%s', not '%s'", x->body, err.message, x->fault);
    }
}

static void normalises(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    json_t *body = parse("{'memory':1024,'stateless':true,'name':'x','comment':null,"
                         "'cpu':{'topology':{'sockets':2}},'soundcard_enabled':'0'}");
    json_t *expected = parse("{'memory':'1024','stateless':'true','name':'x',"
                             "'cpu':{'topology':{'sockets':'2'}},'soundcard_enabled':'false'}");
    assert_true(members_check("Vm", V45, body, &err));
    assert_true(json_equal(body, expected));
    json_decref(body);
    json_decref(expected);
}

static void refuses_deep_nesting(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    json_t *body = json_object();
    for (int i = 0; i < 40; i++)
        body = json_pack("{s:o}", "parent", body);
    assert_false(members_check("Tag", V45, body, &err));
    json_decref(body);
}

static void singulars(void **state)
{
    static const char *const pairs[][2] = {{"disk_attachments", "disk_attachment"},
                                           {"nics", "nic"},
                                           {"custom_properties", "custom_property"},
                                           {"numa_nodes", "vm_numa_node"},
                                           {"dns_servers", "dns_server"},
                                           {"devices", "device"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        char out[64];
        members_singular(pairs[i][0], out, sizeof out);
        assert_string_equal(out, pairs[i][1]);
    }
}

static void versions(void **state)
{
    int v;
    (void)state;
    assert_true(members_version_parse("4.4.10-1.el8", &v) && v == 40410);
    assert_true(members_version_parse("4.5", &v) && v == 40500);
    assert_true(members_version_parse("4.5.", &v) == false);
    assert_false(members_version_parse("", &v));
    assert_false(members_version_parse("four", &v));
    assert_false(members_version_parse("4.500", &v));
    assert_false(members_version_parse("4.5.5x", &v));
}

/* Every type that a row names has a row, or is one of the references that carry no more than an id.
 */
static void table_is_sound(void **state)
{
    (void)state;
    for (const struct member_type_row *row = member_type_rows; row->name; row++) {
        bool found = row->parent[0] == '\0';
        for (const struct member_type_row *p = member_type_rows; p->name && !found; p++)
            found = !strcmp(p->name, row->parent);
        if (!found)
            fail_msg("%s: no parent type %s", row->name, row->parent);
        assert_non_null(row->members);
        for (const char *at = row->members; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
            if (*at == ' ')
                continue;
            const char *colon = strchr(at, ':');
            assert_true(colon && strchr("sibtneol", colon[1]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks),    cmocka_unit_test(normalises),
        cmocka_unit_test(singulars), cmocka_unit_test(refuses_deep_nesting),
        cmocka_unit_test(versions),  cmocka_unit_test(table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
