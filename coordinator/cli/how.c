/* SPDX-License-Identifier: Apache-2.0 */
/* How VMs are taken: the options that backup and export share. */
#include "coordinator/cli/args.h"
#include "coordinator/cli/verbs.h"

enum { KEY_QUIESCE = 0x600, KEY_UNSUPPORTED, KEY_DEADLINE, KEY_KEY };

static const struct argp_option options[] = {
    {.doc = "How:", .group = 2},
    {.name = "quiesce",
     .key = KEY_QUIESCE,
     .arg = "auto|require|off",
     .doc = "Freeze the guest's file systems around the snapshot: when its agent answers (auto, "
            "the default), or fail otherwise (require), or never (off)"},
    {.name = "unsupported-disks",
     .key = KEY_UNSUPPORTED,
     .arg = "skip|fail",
     .doc = "Disks that cannot be snapshotted: skip with a warning (default), or fail the VM"},
    {.name = "deadline",
     .key = KEY_DEADLINE,
     .arg = "DURATION",
     .doc = "Time that each VM may take, e.g. 4h"},
    {.name = "key",
     .key = KEY_KEY,
     .arg = "KEY",
     .doc = "Idempotency key: the same key twice is one job, however often it is sent"},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const struct how_args *how = state->input;
    bool ok;
    switch (key) {
    case KEY_QUIESCE:
        ok = wire_quiesce_parse(arg, how->quiesce);
        break;
    case KEY_UNSUPPORTED:
        ok = wire_unsupported_parse(arg, how->unsupported);
        break;
    case KEY_DEADLINE:
        return args_duration(state, "--deadline", arg, how->deadline_s);
    case KEY_KEY:
        return args_key(state, arg, how->idempotency_key);
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return ok ? 0 : args_bad_word(state, options, key, arg);
}

const struct argp how_argp = {.options = options, .parser = parse};
