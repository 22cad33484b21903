/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The certificate authority of the emulated engine, made anew at each start: a CA, and a server
 * certificate for localhost, 127.0.0.1, ::1, the machine's host name and TLS_NAME, for the API and
 * the imageio endpoint. Threads: read-only after tls_new().
 */
#pragma once

#include "proto/base/err.h"

/* What guests call the engine: "localhost" is themselves. */
#define TLS_NAME "engine.sandbox"

struct tls {
    char *ca_pem, *cert_pem, *key_pem;
};

/* Also writes DIR/ca.pem, DIR/server-cert.pem and DIR/server-key.pem (mode 0600). */
struct tls *tls_new(const char *dir, struct err *err);
void tls_free(struct tls *t);
