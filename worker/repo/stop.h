/* SPDX-License-Identifier: Apache-2.0 */
/* SIGINT and SIGTERM during a long verb: the first one cancels, a second one ends the program. */
#pragma once

#include <stdbool.h>

void repo_catch_signals(void);
/* True once a signal has come; fits copy_opts.cancelled. */
bool repo_stopped(void *context);
