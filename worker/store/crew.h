/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads that do one piece of work together: the work takes the next part from something
 * that they share until there is none. Threads: reentrant.
 */
#pragma once

enum { CREW_MAX = 64 };

/* How many threads: as many as asked for, at most CREW_MAX. 0 = one for each processor, at most 8.
 */
unsigned crew_size(unsigned asked);

/* Run work(context) on so many threads at once, the calling one among them; returns when all calls
 * have. On fewer when no more threads can be had. */
void crew_run(unsigned threads, void (*work)(void *context), void *context);
