/* SPDX-License-Identifier: Apache-2.0 */
/* The specification, and the OVF that is written of a VM and read back. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/spec.h"
#include "tests/sandbox/engine/spec_read.h"
#include "tests/sandbox/engine/vms.h"

static struct engine *make_engine(void)
{
    char pattern[] = "/tmp/oxb-model.XXXXXX";
    struct engine_opts opts = {.dir = xstrdup(mkdtemp(pattern))};
    struct engine *e = engine_new(&opts);
    e->auth = auth_new();
    e->faults = faults_new();
    return e;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void drop_engine(struct engine *e)
{
    auth_free(e->auth);
    faults_free(e->faults);
    (void)nftw(e->opts.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    engine_free(e);
}

static bool apply(struct engine *e, const char *quoted, struct err *err)
{
    SCOPED_FREE char *text = xstrdup(quoted);
    for (char *at = text; *at; at++)
        if (*at == '\'')
            *at = '"';
    json_t *spec = json_loads(text, 0, NULL);
    assert_non_null(spec);
    struct spec out = {0};
    bool ok = spec_apply(e, spec, &out, err);
    spec_done(&out);
    json_decref(spec);
    return ok;
}

static const char two_vms[] =
    "{'version':'4.4.10','vms':[{'name':'web%02d','count':2,'memory':'2GiB','tags':['a','b'],"
    "'description':'five < six & "
    "\\\"seven\\\"','disks':[{'size':'8MiB','format':'raw','interface':'virtio'},"
    "{'size':'4MiB','format':'qcow2','bootable':false}],"
    "'nics':[{'name':'eth<0>','profile':'ovirtmgmt'}]}],"
    "'proxies':[{'name':'proxy'}]}";

static void fills_the_model(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct engine *e = make_engine();
    if (!apply(e, two_vms, &err))
        fail_msg("%s", err.message);
    const struct vm *vm = model_vm_by_name(&e->model, "web02");
    assert_non_null(vm);
    assert_int_equal(e->model.vms.len, 3);
    assert_int_equal(e->version, 40410);
    assert_int_equal(vm->attachments.len, 2);
    assert_int_equal(vm->tags.len, 2);
    assert_true(vm->attachments.at[0]->bootable);
    assert_false(vm->attachments.at[1]->bootable);
    assert_string_equal(vm->attachments.at[0]->interface, "virtio");
    assert_int_equal(vm->attachments.at[0]->disk->size_bytes, 8 << 20);
    assert_string_equal(disk_active_volume(vm->attachments.at[0]->disk)->snapshot_id,
                        vm_active_snapshot(vm)->id);
    assert_true(model_vm_by_name(&e->model, "proxy")->is_proxy);
    drop_engine(e);
}

static void refuses_bad_specs(void **state)
{
    static const struct {
        const char *spec, *fault;
    } cases[] = {
        {"{'vmz':[]}", "unknown member 'vmz'"},
        {"{'version':'3.6'}", "version"},
        {"{'vms':{}}", "'vms' is not a list"},
        {"{'vms':[{}]}", "needs a name"},
        {"{'vms':[{'name':'a'},{'name':'a'}]}", "two VMs"},
        {"{'vms':[{'name':'a','disks':[{}]}]}", "size"},
        {"{'vms':[{'name':'a','disks':[{'size':'1000'}]}]}", "multiple of 512"},
        {"{'vms':[{'name':'a','disks':[{'size':'12Mb'}]}]}", "not a size"},
        {"{'vms':[{'name':'a','disks':[{'size':'1MiB','format':'vmdk'}]}]}", "raw or qcow2"},
        {"{'vms':[{'name':'a','disks':[{'size':'1MiB','fill':2}]}]}", "0 to 1"},
        {"{'vms':[{'name':'a','cluster':'nope'}]}", "no cluster"},
        {"{'vms':[{'name':'a','id':'12'}]}", "not a UUID"},
        {"{'vms':[{'name':'a','guest':'windows'}]}", "writer, linux or none"},
        {"{'proxies':[{'name':'p','guest':'linux','disks':[{'size':'1MiB'}]}]}",
         "no disks of its own"},
        {"{'proxies':[{'name':'p','guest':'linux'}]}", "needs --linux-guest"},
        {"{'vms':[{'name':'a','count':0}]}", "count"},
        {"{'timings':{'snapshot_ms':-1}}", "bad timing"},
        {"{'timings':{'snapshots_ms':1}}", "bad timing"},
        {"{'faults':[{'action':'x'}]}", "unknown action"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct engine *e = make_engine();
        if (apply(e, cases[i].spec, &err))
            fail_msg("%s was taken", cases[i].spec);
        if (!strstr(err.message, cases[i].fault))
            fail_msg("%s: says '%s'", cases[i].spec, err.message);
        drop_engine(e);
    }
}

static void names(void **state)
{
    static const struct {
        const char *pattern;
        unsigned number;
        const char *expected;
    } cases[] = {{"web", 1, "web"},
                 {"web", 2, "web-2"},
                 {"web%d", 7, "web7"},
                 {"web%02d", 7, "web07"},
                 {"a%db", 12, "a12b"},
                 {"x%", 3, "x3"},
                 {"x%099999d", 3, "x000000003"},
                 {"x%n", 3, "x3n"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED_FREE char *name = spec_number_name(cases[i].pattern, cases[i].number);
        assert_string_equal(name, cases[i].expected);
    }
}

static void ovf_round_trip(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct engine *e = make_engine();
    assert_true(apply(e, two_vms, &err));
    const struct vm *vm = model_vm_by_name(&e->model, "web01");
    SCOPED_FREE char *xml = ovf_write(e, vm, vm_active_snapshot(vm)->id);
    struct ovf_vm *o = ovf_read(xml, &err);
    if (!o)
        fail_msg("%s", err.message);
    assert_string_equal(o->id, vm->id);
    assert_string_equal(o->name, "web01");
    assert_string_equal(o->description, "five < six & \"seven\"");
    assert_string_equal(in_str(o->config, "memory"), "2147483648");
    assert_int_equal(o->disks.len, 2);
    assert_string_equal(o->disks.at[0]->disk_id, vm->attachments.at[0]->disk->id);
    assert_string_equal(o->disks.at[0]->image_id,
                        disk_active_volume(vm->attachments.at[0]->disk)->id);
    assert_string_equal(o->disks.at[0]->interface, "virtio");
    assert_string_equal(o->disks.at[1]->interface, "virtio_scsi");
    assert_true(o->disks.at[0]->bootable);
    assert_int_equal(o->nics.len, 1);
    assert_string_equal(o->nics.at[0]->name, "eth<0>");
    assert_string_equal(o->nics.at[0]->mac, vm->nics.at[0]->mac);
    assert_string_equal(o->nics.at[0]->network, "ovirtmgmt");
    ovf_vm_free(o);
    drop_engine(e);
}

static void refuses_bad_ovf(void **state)
{
    static const char *const cases[] = {
        "",
        "<",
        "text",
        "<Other/>",
        "<Envelope/>",
        "<Envelope><Content/></Envelope>",
        "<Envelope><Content><Section type='OperatingSystemSection_Type'/></Content></Envelope>",
        "<Envelope><Content><Section id='x' type='OperatingSystemSection_Type'/></Content>"
        "</Envelope>",
        "<Envelope><Section type='DiskSection_Type'><Disk fileRef='a/b'/></Section><Content>"
        "<Section id='11111111-1111-1111-1111-111111111111' type='OperatingSystemSection_Type'/>"
        "</Content></Envelope>",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct ovf_vm *o = ovf_read(cases[i], &err);
        if (o)
            fail_msg("'%s' was taken", cases[i]);
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    }
}

static void sample_specs_are_good(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct engine *e = make_engine();
    SCOPED_FREE char *text = spec_sample(7);
    if (!apply(e, text, &err))
        fail_msg("%s", err.message);
    assert_int_equal(e->model.vms.len, 10);
    drop_engine(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_the_model), cmocka_unit_test(refuses_bad_specs),
        cmocka_unit_test(names),           cmocka_unit_test(ovf_round_trip),
        cmocka_unit_test(refuses_bad_ovf), cmocka_unit_test(sample_specs_are_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
