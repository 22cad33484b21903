/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What oVirt's OVF looks like: <ovf:Envelope> with <References> (<File> per volume, <Nic>),
 * <NetworkSection> (<Network>), <Section xsi:type="ovf:DiskSection_Type"> (<Disk> per volume) and
 * <Content> (in the OVA flavour: <VirtualSystem>) with <Name>, <Description>, and <Section>s for
 * the hardware (<Item> with <rasd:ResourceType>: 17 disk, 10 NIC) and the snapshots. Elements are
 * matched by their local name: the flavours differ in namespaces.
 */
#include "worker/ovirt/ovf.h"

#include <pthread.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

static pthread_once_t parser_once = PTHREAD_ONCE_INIT;

static void parser_init(void)
{
    xmlInitParser();
}

static bool is_named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

static xmlNode *child_named(const xmlNode *parent, const char *name)
{
    for (xmlNode *c = parent->children; c; c = c->next) {
        if (is_named(c, name))
            return c;
    }
    return NULL;
}

static void drop(xmlNode *node)
{
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

static void drop_children(xmlNode *parent, bool (*unwanted)(const xmlNode *node))
{
    xmlNode *next;
    for (xmlNode *c = parent->children; c; c = next) {
        next = c->next;
        if (unwanted(c))
            drop(c);
    }
}

/* <Section xsi:type="ovf:X_Type"> or <X>. */
static bool is_section(const xmlNode *node, const char *kind)
{
    if (is_named(node, kind))
        return true;
    if (!is_named(node, "Section"))
        return false;
    bool found = false;
    for (const xmlAttr *a = node->properties; a && !found; a = a->next) {
        if (strcmp((const char *)a->name, "type") != 0)
            continue;
        xmlChar *value = xmlNodeListGetString(node->doc, a->children, 1);
        found = value && strstr((const char *)value, kind);
        xmlFree(value);
    }
    return found;
}

static bool is_file_or_nic(const xmlNode *node)
{
    return is_named(node, "File") || is_named(node, "Nic");
}

static bool is_network(const xmlNode *node)
{
    return is_named(node, "Network");
}

static bool is_disk(const xmlNode *node)
{
    return is_named(node, "Disk");
}

static bool is_snapshots(const xmlNode *node)
{
    return is_section(node, "SnapshotsSection");
}

/* CIM resource types, and oVirt's <Type>disk</Type>, <Type>interface</Type>. */
static bool is_disk_or_nic_item(const xmlNode *node)
{
    if (!is_named(node, "Item") && !is_named(node, "StorageItem") &&
        !is_named(node, "EthernetPortItem"))
        return false;
    const xmlNode *resource = child_named(node, "ResourceType");
    const xmlNode *type = child_named(node, "Type");
    xmlChar *number = resource ? xmlNodeGetContent(resource) : NULL;
    xmlChar *word = type ? xmlNodeGetContent(type) : NULL;
    const char *n = number ? (const char *)number : "";
    const char *w = word ? (const char *)word : "";
    bool unwanted = strcmp(n, "17") == 0 || strcmp(n, "10") == 0 || strcmp(w, "disk") == 0 ||
                    strcmp(w, "interface") == 0;
    xmlFree(number);
    xmlFree(word);
    return unwanted;
}

static void set_text(xmlNode *parent, const char *name, const char *text)
{
    xmlNode *node = child_named(parent, name);
    if (!node) {
        node = xmlNewDocNode(parent->doc, NULL, (const xmlChar *)name, NULL);
        if (parent->children)
            xmlAddPrevSibling(parent->children, node);
        else
            xmlAddChild(parent, node);
    }
    xmlChar *escaped = xmlEncodeSpecialChars(parent->doc, (const xmlChar *)text);
    xmlNodeSetContent(node, escaped);
    xmlFree(escaped);
}

static void strip_envelope(xmlNode *envelope)
{
    for (xmlNode *part = envelope->children; part; part = part->next) {
        if (is_named(part, "References"))
            drop_children(part, is_file_or_nic);
        else if (is_section(part, "NetworkSection"))
            drop_children(part, is_network);
        else if (is_section(part, "DiskSection"))
            drop_children(part, is_disk);
    }
}

static void strip_system(xmlNode *system, const struct ovf_as *as)
{
    drop_children(system, is_snapshots);
    for (xmlNode *part = system->children; part; part = part->next) {
        if (is_section(part, "VirtualHardwareSection"))
            drop_children(part, is_disk_or_nic_item);
    }
    set_text(system, "Name", as->name);
    if (as->description)
        set_text(system, "Description", as->description);
    /* A half-restored VM must be removable; ovirt_vm_finish() sets it again. */
    if (child_named(system, "DeleteProtected"))
        set_text(system, "DeleteProtected", "false");
}

static char *serialize(xmlDoc *doc, struct err *err)
{
    xmlChar *text = NULL;
    int len = 0;
    xmlDocDumpMemoryEnc(doc, &text, &len, "UTF-8");
    if (!text || len <= 0) {
        xmlFree(text);
        err_set(err, ERR_INTERNAL, 0, "OVF: cannot be written");
        return NULL;
    }
    char *copy = xstrndup((const char *)text, (size_t)len);
    xmlFree(text);
    return copy;
}

/* No network, no entity expansion, no huge trees: the document comes from outside. */
static xmlDoc *parse(struct slice ovf, struct err *err)
{
    (void)pthread_once(&parser_once, parser_init);
    if (ovf.len == 0 || ovf.len > OVF_MAX_BYTES) {
        err_set(err, ovf.len ? ERR_TOO_LARGE : ERR_BAD_MESSAGE, 0, "OVF of %zu bytes", ovf.len);
        return NULL;
    }
    xmlParserCtxt *parser = xmlNewParserCtxt();
    if (!parser) {
        err_set(err, ERR_INTERNAL, 0, "OVF: no parser");
        return NULL;
    }
    xmlDoc *doc = xmlCtxtReadMemory(parser, ovf.data, (int)ovf.len, "ovf", NULL,
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!doc) {
        const xmlError *why = xmlCtxtGetLastError(parser);
        err_set(err, ERR_BAD_MESSAGE, 0, "OVF is not XML: line %d: %.200s", why ? why->line : 0,
                why && why->message ? why->message : "unknown");
    }
    xmlFreeParserCtxt(parser);
    return doc;
}

static xmlNode *system_of(xmlNode *envelope)
{
    xmlNode *content = child_named(envelope, "Content");
    return content ? content : child_named(envelope, "VirtualSystem");
}

char *ovf_rewrite(struct slice ovf, const struct ovf_as *as, struct err *err)
{
    xmlDoc *doc = parse(ovf, err);
    if (!doc)
        return NULL;
    char *text = NULL;
    xmlNode *envelope = xmlDocGetRootElement(doc);
    xmlNode *system = envelope && is_named(envelope, "Envelope") ? system_of(envelope) : NULL;
    if (xmlGetIntSubset(doc)) {
        err_set(err, ERR_BAD_MESSAGE, 0, "OVF has a document type declaration");
    } else if (!system) {
        err_set(err, ERR_BAD_MESSAGE, 0,
                "OVF is not an Envelope with a Content or VirtualSystem in it");
    } else {
        strip_envelope(envelope);
        strip_system(system, as);
        text = serialize(doc, err);
    }
    xmlFreeDoc(doc);
    return text;
}
