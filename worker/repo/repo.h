/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `oxbow-worker repo VERB ...`: a repository without broker, coordinator or engine. One worker
 * program and the repository are enough to get every byte back.
 */
#pragma once

/* argv[0] is "repo". Returns the exit code: 0 done, 1 failed, 2 wrong usage. */
int repo_main(int argc, char **argv);
