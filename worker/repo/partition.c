/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/partition.h"

#include <endian.h>
#include <string.h>

enum {
    SECTOR_BYTES = 512,
    MBR_TABLE = 446,
    MBR_ENTRY_BYTES = 16,
    MBR_ENTRIES = 4,
    MBR_TYPE_GPT = 0xee,
    GPT_ENTRY_BYTES_MAX = 4096,
    EXT_MAGIC_AT = 1024 + 56, /* of the superblock: Documentation/filesystems/ext4/super.rst */
};

static uint64_t little(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* False without an error when the range is not on the disk. */
static bool read_at(struct store_reader *reader, uint64_t offset, void *buf, size_t len,
                    struct err *err)
{
    uint64_t size = store_reader_size(reader);
    return offset <= size && len <= size - offset && store_disk_read(reader, buf, len, offset, err);
}

static bool is_ext(struct store_reader *reader, uint64_t offset, struct err *err)
{
    static const uint8_t magic[2] = {0x53, 0xef};
    uint8_t found[2];
    return offset <= STORE_DISK_BYTES_MAX &&
           read_at(reader, offset + EXT_MAGIC_AT, found, sizeof found, err) &&
           memcmp(found, magic, sizeof magic) == 0;
}

struct search {
    struct store_reader *reader;
    unsigned found, other; /* numbers; `count` says how many count */
    unsigned count;
};

static void look_at(struct search *s, unsigned number, uint64_t first_sector, struct err *err)
{
    if (first_sector == 0 || first_sector > STORE_DISK_BYTES_MAX / SECTOR_BYTES ||
        !is_ext(s->reader, first_sector * SECTOR_BYTES, err))
        return;
    *(s->count == 0 ? &s->found : &s->other) = number;
    s->count++;
}

/* nbdkit's partition filter numbers GPT entries by their place in the table, from 1. */
static bool look_at_gpt(struct search *s, struct err *err)
{
    uint8_t header[SECTOR_BYTES], entry[48];
    if (!read_at(s->reader, SECTOR_BYTES, header, sizeof header, err) ||
        memcmp(header, "EFI PART", 8) != 0)
        return !err_is_set(err);
    uint64_t table = little(header + 72, 8), count = little(header + 80, 4),
             bytes = little(header + 84, 4);
    if (bytes < 128 || bytes > GPT_ENTRY_BYTES_MAX || table > STORE_DISK_BYTES_MAX / SECTOR_BYTES)
        return true;
    for (unsigned i = 0; i < count && i < PARTITION_MAX && !err_is_set(err); i++) {
        if (read_at(s->reader, table * SECTOR_BYTES + i * bytes, entry, sizeof entry, err))
            look_at(s, i + 1, little(entry + 32, 8), err);
    }
    return !err_is_set(err);
}

static bool look_at_tables(struct search *s, struct err *err)
{
    uint8_t mbr[SECTOR_BYTES];
    if (!read_at(s->reader, 0, mbr, sizeof mbr, err) || mbr[510] != 0x55 || mbr[511] != 0xaa)
        return !err_is_set(err);
    for (unsigned i = 0; i < MBR_ENTRIES && !err_is_set(err); i++) {
        const uint8_t *entry = mbr + MBR_TABLE + i * MBR_ENTRY_BYTES;
        if (entry[4] == MBR_TYPE_GPT)
            return look_at_gpt(s, err);
        if (entry[4] != 0)
            look_at(s, i + 1, little(entry + 8, 4), err);
    }
    return !err_is_set(err);
}

bool partition_find_ext(struct store_reader *reader, unsigned *ret_number, struct err *err)
{
    struct search s = {.reader = reader};
    if (is_ext(reader, 0, err)) {
        *ret_number = 0;
        return true;
    }
    if (err_is_set(err) || !look_at_tables(&s, err))
        return false;
    if (s.count == 0)
        return err_set(
            err, ERR_NOT_FOUND, 0,
            "no ext2, ext3 or ext4 file system in the disk or its partitions: libguestfs "
            "(package guestfish) reads others");
    if (s.count > 1)
        return err_set(err, ERR_CONFLICT, 0,
                       "%u file systems: choose one by --filesystem, say /dev/sda%u or /dev/sda%u",
                       s.count, s.found, s.other);
    *ret_number = s.found;
    return true;
}
