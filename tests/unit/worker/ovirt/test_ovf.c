/* SPDX-License-Identifier: Apache-2.0 */
/* Rewriting an OVF as oVirt writes it: no disk, NIC or snapshot is left, everything else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <libxml/parser.h>

#include "worker/ovirt/ovf.h"

#define DISK  "11111111-1111-4111-8111-111111111111"
#define IMAGE "22222222-2222-4222-8222-222222222222"

static const char sample[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
    "<ovf:Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1/\" "
    "xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
    "CIM_ResourceAllocationSettingData\" "
    "xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" "
    "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" ovf:version=\"4.4.0.0\">"
    "<References><File ovf:href=\"" DISK "/" IMAGE "\" ovf:id=\"" IMAGE
    "\" ovf:size=\"1\" ovf:disk_storage_type=\"IMAGE\"></File><Nic "
    "ovf:id=\"n1\"></Nic></References>"
    "<NetworkSection><Info>List of networks</Info><Network ovf:name=\"ovirtmgmt\"></Network>"
    "</NetworkSection>"
    "<Section xsi:type=\"ovf:DiskSection_Type\"><Info>List of Virtual Disks</Info>"
    "<Disk ovf:diskId=\"" IMAGE "\" ovf:size=\"1\" ovf:fileRef=\"" DISK "/" IMAGE "\"></Disk>"
    "</Section>"
    "<Content ovf:id=\"out\" xsi:type=\"ovf:VirtualSystem_Type\">"
    "<Description>old &amp; wise</Description><DeleteProtected>true</DeleteProtected>"
    "<Name>web01</Name><TimeZone>Etc/GMT</TimeZone>"
    "<Section ovf:id=\"33333333-3333-4333-8333-333333333333\" ovf:required=\"false\" "
    "xsi:type=\"ovf:OperatingSystemSection_Type\"><Info>Guest OS</Info>"
    "<Description>rhel_8x64</Description></Section>"
    "<Section xsi:type=\"ovf:VirtualHardwareSection_Type\"><Info>2 CPU</Info>"
    "<Item><rasd:Caption>2 virtual cpu</rasd:Caption><rasd:ResourceType>3</rasd:ResourceType>"
    "</Item>"
    "<Item><rasd:Caption>disk</rasd:Caption><rasd:InstanceId>" IMAGE "</rasd:InstanceId>"
    "<rasd:ResourceType>17</rasd:ResourceType><Type>disk</Type><Device>disk</Device></Item>"
    "<Item><rasd:Caption>lun</rasd:Caption><rasd:ResourceType>0</rasd:ResourceType>"
    "<Type>disk</Type></Item>"
    "<Item><rasd:Caption>nic</rasd:Caption><rasd:ResourceType>10</rasd:ResourceType>"
    "<rasd:MACAddress>56:6f:00:00:00:01</rasd:MACAddress><Type>interface</Type></Item>"
    "<Item><rasd:Caption>Graphical</rasd:Caption><rasd:ResourceType>20</rasd:ResourceType>"
    "<Type>video</Type><Device>qxl</Device></Item></Section>"
    "<Section xsi:type=\"ovf:SnapshotsSection_Type\"><Snapshot ovf:id=\"s1\"><Type>ACTIVE</Type>"
    "</Snapshot></Section>"
    "<Section xsi:type=\"ovf:VmExternalDataSection_Type\"><VmExternalDataItem kind=\"tpm\">"
    "<VmExternalDataContent>AAAA</VmExternalDataContent></VmExternalDataItem></Section>"
    "</Content></ovf:Envelope>";

static char *rewrite(const char *text, struct err *err)
{
    return ovf_rewrite((struct slice){.data = text, .len = strlen(text)},
                       &(struct ovf_as){.name = "new <&> name", .description = "oxbow restoring"},
                       err);
}

static void strips_disks_nics_and_snapshots(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *out = rewrite(sample, &err);
    assert_non_null(out);
    static const char *const gone[] = {DISK,         IMAGE,   "ovirtmgmt",      "56:6f",
                                       "Snapshot",   "web01", "old &amp; wise", "Nic ",
                                       "<Type>disk", "lun"};
    for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
        if (strstr(out, gone[i]))
            fail_msg("'%s' is still there: %s", gone[i], out);
    }
    static const char *const kept[] = {"<Name>new &lt;&amp;&gt; name</Name>",
                                       "<Description>oxbow restoring</Description>",
                                       "<Description>rhel_8x64</Description>",
                                       "2 virtual cpu",
                                       "qxl",
                                       "<DeleteProtected>false</DeleteProtected>",
                                       "Etc/GMT",
                                       "33333333-3333-4333-8333-333333333333",
                                       "<VmExternalDataContent>AAAA<",
                                       "ovf:version=\"4.4.0.0\"",
                                       "DiskSection_Type",
                                       "<References"};
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        if (!strstr(out, kept[i]))
            fail_msg("'%s' is missing: %s", kept[i], out);
    }
    xmlDoc *doc = xmlReadMemory(out, (int)strlen(out), "out", NULL, XML_PARSE_NONET);
    assert_non_null(doc);
    xmlFreeDoc(doc);
}

static void rewriting_twice_changes_nothing_more(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *once = rewrite(sample, &err);
    SCOPED_FREE char *twice = rewrite(once, &err);
    assert_string_equal(once, twice);
}

static void makes_name_and_description_when_missing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *out =
        rewrite("<Envelope><VirtualSystem ovf:id=\"x\" xmlns:ovf=\"u\"/></Envelope>", &err);
    assert_non_null(out);
    assert_non_null(strstr(out, "<Name>new &lt;&amp;&gt; name</Name>"));
    assert_non_null(strstr(out, "<Description>oxbow restoring</Description>"));
}

static void keeps_the_description_when_asked(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *out = ovf_rewrite((struct slice){.data = sample, .len = sizeof sample - 1},
                                        &(struct ovf_as){.name = "n"}, &err);
    assert_non_null(strstr(out, "<Description>old &amp; wise</Description>"));
}

static void refuses_what_is_no_ovf(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "not xml",
        "<Envelope>",
        "<Other><Content/></Other>",
        "<Envelope><NoContent/></Envelope>",
        "<!DOCTYPE x [<!ENTITY a \"b\">]><Envelope><Content><Name>&a;</Name></Content></Envelope>",
        "<!DOCTYPE x SYSTEM \"file:///etc/passwd\"><Envelope><Content/></Envelope>",
        "<Envelope><Content>&undefined;</Content></Envelope>",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        assert_null(rewrite(bad[i], &err));
        assert_int_equal(err.code, ERR_BAD_MESSAGE);
    }
    struct err err = ERR_INIT;
    assert_null(ovf_rewrite((struct slice){.data = sample, .len = (size_t)OVF_MAX_BYTES + 1},
                            &(struct ovf_as){.name = "n"}, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strips_disks_nics_and_snapshots),
        cmocka_unit_test(rewriting_twice_changes_nothing_more),
        cmocka_unit_test(makes_name_and_description_when_missing),
        cmocka_unit_test(keeps_the_description_when_asked),
        cmocka_unit_test(refuses_what_is_no_ovf),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    xmlCleanupParser();
    return rc;
}
