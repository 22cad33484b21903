/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/guests.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/guest/guest.h"
#include "tests/sandbox/guest/pattern.h"

enum { GUESTS_TIMEOUT_MS = 60000, GUESTS_FILL_TIMEOUT_MS = 600000 };

char *guests_spec_path(const struct engine *e, const struct vm *vm)
{
    return xasprintf("%s/guests/%s/spec.json", e->opts.dir, vm->id);
}

/* Live image disks take part; a LUN or a shared disk has no one guest that could judge it. */
static bool takes_part(const struct attachment *a)
{
    return a->plugged && !a->on_host && a->snapshot_id[0] == '\0' && !a->read_only &&
           disk_is_snapable(a->disk);
}

static void fill_spec(const struct vm *vm, struct pattern_spec *spec)
{
    (void)snprintf(spec->vm, sizeof spec->vm, "%s", vm->name);
    spec->seed = 1000 + vm->seed;
    spec->common_seed = 1;
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        if (!takes_part(a) || spec->disk_count == PATTERN_DISKS_MAX)
            continue;
        struct pattern_disk *d = &spec->disks[spec->disk_count++];
        (void)snprintf(d->id, sizeof d->id, "%s", a->disk->id);
        d->size_bytes = a->disk->size_bytes;
        d->fill_percent = a->disk->fill_percent;
        d->shared_percent = a->disk->shared_percent;
        d->hot_mib = a->disk->hot_mib;
    }
}

/* What is on its disks follows from the first start for ever: disks that come later, or grow, are
 * no partition of its. One without a disk of its own does not come up. */
static bool take_spec(const struct engine *e, struct vm *vm, struct pattern_spec *spec,
                      struct err *err)
{
    if (!vm->guest_placed) {
        fill_spec(vm, spec);
        vm->guest_placed = spec->disk_count > 0;
        return true;
    }
    SCOPED_FREE char *path = guests_spec_path(e, vm);
    if (!pattern_spec_load(path, spec, err))
        return false;
    for (size_t i = 0; i < spec->disk_count; i++) {
        const struct attachment *a = vm_attachment(vm, spec->disks[i].id);
        if (a && takes_part(a))
            continue;
        log_warn("guest_without_disk", LOG_STR("vm", vm->name), LOG_STR("disk", spec->disks[i].id));
        spec->disk_count = 0;
    }
    return true;
}

static struct guest *start_writer(struct engine *e, struct vm *vm, const struct pattern_spec *spec,
                                  struct err *err)
{
    SCOPED_FREE char *spec_path = guests_spec_path(e, vm);
    SCOPED_FREE char *run_dir = xasprintf("%s/r/g%.8s", e->opts.dir, vm->id);
    SCOPED_FREE char *spec_dir = xstrndup(spec_path, (size_t)(strrchr(spec_path, '/') - spec_path));
    struct guest_disk disks[PATTERN_DISKS_MAX];
    char *uris[PATTERN_DISKS_MAX] = {0};
    struct guest_opts opts = {.program = e->opts.writer,
                              .run_dir = run_dir,
                              .spec_path = spec_path,
                              .disks = disks,
                              .disk_count = spec->disk_count,
                              .writes_per_s = vm->writer_rate,
                              .fill = true};
    for (size_t i = 0; i < spec->disk_count; i++) {
        uris[i] = block_vm_nbd_uri(vm->block, spec->disks[i].id);
        disks[i] = (struct guest_disk){.id = spec->disks[i].id, .uri = uris[i]};
    }
    struct guest *g = NULL;
    if (file_make_dirs(spec_dir, 0755, err) && pattern_spec_save(spec, spec_path, err))
        g = guest_start(&opts, err);
    for (size_t i = 0; i < spec->disk_count; i++)
        free(uris[i]);
    return g;
}

/* Its first two disks are its file systems. */
static bool start_linux(struct engine *e, struct vm *vm, struct err *err)
{
    SCOPED_FREE char *run_dir = xasprintf("%s/r/l%.8s", e->opts.dir, vm->id);
    if (!e->opts.linux_dir)
        return err_set(err, ERR_BAD_CONFIG, 0, "a Linux guest needs --linux-guest DIR");
    if (vm->attachments.len < 2)
        return err_set(err, ERR_BAD_CONFIG, 0, "a Linux guest needs two disks");
    SCOPED_FREE char *kernel = xasprintf("%s/vmlinuz", e->opts.linux_dir);
    SCOPED_FREE char *initrd = xasprintf("%s/initrd", e->opts.linux_dir);
    char serials[2][21];
    for (size_t i = 0; i < 2; i++)
        (void)snprintf(serials[i], sizeof serials[i], "%.20s", vm->attachments.at[i]->disk->id);
    SCOPED_FREE char *uri_a = block_vm_nbd_uri(vm->block, vm->attachments.at[0]->disk->id);
    SCOPED_FREE char *uri_b = block_vm_nbd_uri(vm->block, vm->attachments.at[1]->disk->id);
    if (!uri_a || !uri_b)
        return err_set(err, ERR_BAD_CONFIG, 0, "a Linux guest's first two disks are image disks");
    const struct linux_guest_opts opts = {.run_dir = run_dir,
                                          .kernel = kernel,
                                          .initrd = initrd,
                                          .uri_a = uri_a,
                                          .uri_b = uri_b,
                                          .serial_a = serials[0],
                                          .serial_b = serials[1]};
    if (!storage_begin(e, vm, err))
        return false;
    struct guest *g = guest_start_linux(&opts, err);
    storage_end(e, vm);
    vm->guest = g;
    return g != NULL;
}

bool guests_start(struct engine *e, struct vm *vm, struct err *err)
{
    if (vm->guest_kind == GUEST_NONE || storage_is_machine(vm))
        return true;
    if (vm->guest_kind == GUEST_LINUX)
        return start_linux(e, vm, err);
    SCOPED_FREE struct pattern_spec *spec = ALLOC_NEW(struct pattern_spec);
    vm->guest = NULL;
    if (!take_spec(e, vm, spec, err))
        return false;
    if (spec->disk_count == 0)
        return true;
    if (!storage_begin(e, vm, err))
        return false;
    struct guest *g = start_writer(e, vm, spec, err);
    storage_end(e, vm);
    vm->guest = g;
    return g != NULL;
}

bool guests_wait(struct engine *e, struct vm *vm, struct err *err)
{
    struct guest *g = vm->guest;
    uint64_t acked = vm->guest_kind == GUEST_LINUX ? 1 : 0; /* it has booted then */
    if (!g)
        return true;
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = guest_wait(g, acked, GUESTS_FILL_TIMEOUT_MS, err);
    storage_end(e, vm);
    return ok || err_wrap(err, "guest of VM '%s'", vm->name);
}

void guests_stop(struct guest *g)
{
    guest_stop(g);
}

static bool set_frozen(struct engine *e, struct vm *vm, bool frozen, struct err *err)
{
    struct guest *g = vm->guest;
    if (!g)
        return err_set(err, ERR_UNSUPPORTED, 0, "VM '%s' has no guest agent", vm->name);
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = frozen ? guest_freeze(g, GUESTS_TIMEOUT_MS, NULL, err)
                     : guest_thaw(g, GUESTS_TIMEOUT_MS, err);
    storage_end(e, vm);
    return ok;
}

bool guests_freeze(struct engine *e, struct vm *vm, struct err *err)
{
    return set_frozen(e, vm, true, err);
}

bool guests_thaw(struct engine *e, struct vm *vm, struct err *err)
{
    return set_frozen(e, vm, false, err);
}

int64_t guests_acked(const struct vm *vm)
{
    struct guest_state state;
    struct err err = ERR_INIT;
    if (!vm->guest || !guest_state(vm->guest, &state, &err))
        return -1;
    return (int64_t)state.acked;
}
