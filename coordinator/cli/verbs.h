/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of each verb as a request, so that tests can read one without sending it. The
 * results point at argv and into themselves: they must not be moved, and argv must live as long.
 *
 * `argp_flags` is 0 in the program (a mistake prints a usage line and exits with CLI_USAGE) and
 * ARGP_NO_EXIT in tests. Returns false when something was wrong. Threads: one.
 */
#pragma once

#include "coordinator/cli/job.h"
#include "coordinator/cli/query.h"

/* argp child of verbs that take a snapshot, as jobs: how, until when, under which key. Its input
 * says where the answers go. */
struct how_args {
    enum wire_quiesce *quiesce;
    enum wire_unsupported *unsupported;
    int64_t *deadline_s;
    char **idempotency_key;
};
extern const struct argp how_argp;

struct backup_args {
    struct job_args job;
    struct how_args how;
    struct wire_backup message;
    struct wire_select select;
    struct wire_backup_opts options;
};
bool backup_parse(int argc, char **argv, unsigned argp_flags, struct backup_args *ret);
void backup_args_done(struct backup_args *args);

struct export_args {
    struct job_args job;
    struct how_args how;
    struct wire_export message;
    struct wire_select select;
    struct wire_export_opts options;
    char *host; /* owned: of options */
};
/* The caller calls export_args_done(). */
bool export_parse(int argc, char **argv, unsigned argp_flags, struct export_args *ret);
void export_args_done(struct export_args *args);

struct restore_args {
    struct job_args job;
    struct wire_restore message;
    struct wire_restore_opts options;
};
bool restore_parse(int argc, char **argv, unsigned argp_flags, struct restore_args *ret);
void restore_args_done(struct restore_args *args);

struct list_args {
    struct query_args query;
    struct wire_list message;
};
bool list_parse(int argc, char **argv, unsigned argp_flags, struct list_args *ret);

struct prune_args {
    struct query_args query;
    struct wire_prune message;
    struct wire_policy policy; /* message.policy, when there is a rule */
};
/* The caller calls prune_args_done(). */
bool prune_parse(int argc, char **argv, unsigned argp_flags, struct prune_args *ret);
void prune_args_done(struct prune_args *args);

struct verify_args {
    struct query_args query;
    struct wire_verify message;
};
bool verify_parse(int argc, char **argv, unsigned argp_flags, struct verify_args *ret);

struct plan_args {
    struct query_args query;
    struct wire_plan message;
    struct wire_select select;
    struct wire_backup_opts options;
};
/* The caller calls plan_args_done(). */
bool plan_parse(int argc, char **argv, unsigned argp_flags, struct plan_args *ret);
void plan_args_done(struct plan_args *args);

struct status_args {
    struct job_args job; /* its waiting options only count with --watch */
    struct query_args query;
    struct wire_status message;
    bool watch;
};
bool status_parse(int argc, char **argv, unsigned argp_flags, struct status_args *ret);

struct cancel_args {
    struct job_args job;
    struct wire_cancel message;
};
bool cancel_parse(int argc, char **argv, unsigned argp_flags, struct cancel_args *ret);

struct inventory_args {
    struct query_args query;
    struct wire_inventory message;
};
bool inventory_parse(int argc, char **argv, unsigned argp_flags, struct inventory_args *ret);

struct doctor_args {
    struct connect_args connect;
    struct output_args output;
    struct wire_doctor message;
};
bool doctor_parse(int argc, char **argv, unsigned argp_flags, struct doctor_args *ret);

struct sweep_args {
    struct query_args query;
    struct wire_sweep message;
};
bool sweep_parse(int argc, char **argv, unsigned argp_flags, struct sweep_args *ret);

/* argp child of verbs that select VMs, with their words; its input is a struct wire_select. */
extern const struct argp selection_argp;
void selection_done(struct wire_select *select);
