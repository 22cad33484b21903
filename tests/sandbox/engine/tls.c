/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/tls.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"

enum { TLS_DAYS = 30, TLS_BACKDATE_S = 3600 };

static char *pem_of(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    return xstrndup(data, (size_t)len);
}

static char *cert_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert);
    char *pem = pem_of(bio);
    BIO_free(bio);
    return pem;
}

static char *key_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    char *pem = pem_of(bio);
    BIO_free(bio);
    return pem;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = ext && X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

/* A certificate without extensions and signature. */
static X509 *cert_begin(EVP_PKEY *key, const char *name, const X509 *issuer)
{
    X509 *cert = X509_new();
    unsigned char serial[8];
    (void)RAND_bytes(serial, sizeof serial);
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
    BN_free(number);
    X509_set_version(cert, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(cert), -TLS_BACKDATE_S);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * TLS_DAYS);
    X509_set_pubkey(cert, key);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const unsigned char *)"sandbox", -1,
                               -1, 0);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1,
                               0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    return cert;
}

static X509 *make_ca(EVP_PKEY *key)
{
    X509 *ca = cert_begin(key, "Sandbox engine CA", NULL);
    if (!add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE") ||
        !add_extension(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_extension(ca, ca, NID_subject_key_identifier, "hash") ||
        !X509_sign(ca, key, EVP_sha256())) {
        X509_free(ca);
        return NULL;
    }
    return ca;
}

static X509 *make_server(EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key)
{
    char host[128] = "localhost";
    (void)gethostname(host, sizeof host - 1);
    SCOPED_FREE char *names = xasprintf("DNS:localhost,DNS:%s,DNS:" TLS_NAME ",IP:127.0.0.1,IP:::1",
                                        host[0] ? host : "localhost");
    X509 *cert = cert_begin(key, "localhost", ca);
    if (!add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(cert, ca, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(cert, ca, NID_ext_key_usage, "serverAuth") ||
        !add_extension(cert, ca, NID_subject_alt_name, names) ||
        !add_extension(cert, ca, NID_authority_key_identifier, "keyid") ||
        !X509_sign(cert, ca_key, EVP_sha256())) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static bool write_pem(const char *dir, const char *name, const char *pem, mode_t mode,
                      struct err *err)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    return file_write_atomic(AT_FDCWD, path, pem, strlen(pem), mode, err);
}

static bool fill(struct tls *t, EVP_PKEY *ca_key, EVP_PKEY *key)
{
    X509 *ca = make_ca(ca_key);
    X509 *cert = ca ? make_server(key, ca, ca_key) : NULL;
    if (cert) {
        t->ca_pem = cert_pem(ca);
        t->cert_pem = cert_pem(cert);
        t->key_pem = key_pem(key);
    }
    X509_free(cert);
    X509_free(ca);
    return t->ca_pem != NULL;
}

struct tls *tls_new(const char *dir, struct err *err)
{
    struct tls *t = ALLOC_NEW(struct tls);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    bool ok = ca_key && key && fill(t, ca_key, key);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    if (!ok)
        err_set(err, ERR_INTERNAL, 0, "could not make the sandbox's certificates");
    ok = ok && write_pem(dir, "ca.pem", t->ca_pem, 0644, err) &&
         write_pem(dir, "server-cert.pem", t->cert_pem, 0644, err) &&
         write_pem(dir, "server-key.pem", t->key_pem, 0600, err);
    if (!ok) {
        tls_free(t);
        return NULL;
    }
    return t;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    free(t->ca_pem);
    free(t->cert_pem);
    free(t->key_pem);
    free(t);
}
