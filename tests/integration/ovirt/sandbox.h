/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox cluster for C tests: started as its own process in its own folder, told what to break
 * through its control socket, stopped by pid. Everything here fails the running test on error.
 */
#pragma once

#include <jansson.h>

#include "worker/ovirt/engine.h"

struct sandbox {
    char dir[64];
    int pid;
    json_t *about; /* DIR/sandbox.json */
    char *url, *ca_file, *user, *password_file, *control;
    char *proxy_id, *proxy_name, *datacenter_id, *device_dir;
};

/* `spec` is JSON text; `version` NULL = the sandbox's default. */
void sandbox_start(struct sandbox *b, const char *spec, const char *version);
void sandbox_stop(struct sandbox *b);

/* Settings of a client for it, with short waits. Borrowed strings. */
struct engine_conf sandbox_conf(const struct sandbox *b);

/* METHOD /sandbox/PATH; `body` may be NULL. New reference. */
json_t *sandbox_control(const struct sandbox *b, const char *method, const char *path,
                        const char *body);
/* Adds fault rules (JSON text); removes all of them, failing when one never fired. */
void sandbox_break(const struct sandbox *b, const char *rules);
void sandbox_heal(const struct sandbox *b);

/* How often a change was answered by the engine: method, and what the path begins with. */
size_t sandbox_changes(const struct sandbox *b, const char *method, const char *path);
/* From the sandbox's own view: id of a VM; regular snapshots; snapshot disks on the proxy; VMs of
 * that name; disks in all. */
char *sandbox_vm_id(const struct sandbox *b, const char *name);
size_t sandbox_snapshots(const struct sandbox *b, const char *vm_id);
size_t sandbox_proxy_disks(const struct sandbox *b);
size_t sandbox_vms_named(const struct sandbox *b, const char *name);
size_t sandbox_disks(const struct sandbox *b);
