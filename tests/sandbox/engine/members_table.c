/* SPDX-License-Identifier: Apache-2.0 */
/* The members of the API model 4.6, type by type; see members.h. "@4.4.3" = since that engine
 * version. Source: the published API model, ovirt-engine-api-model. */
#include "tests/sandbox/engine/members.h"

const struct member_type_row member_type_rows[] = {
    {"Identified", "",
     "id:s name:s description:s comment:s href:s link:l:Link actions:o:Actions "
     "creation_status:s "},
    {"Device", "Identified", "instance_type:o:InstanceType template:o:Template vm:o:Vm vms:l:Vm "},
    {"Link", "", "href:s rel:s "},
    {"Actions", "", "link:l:Link "},
    {"Template", "VmBase",
     "vm:o:Vm status:s version:o:TemplateVersion "
     "disk_attachments:l:DiskAttachment nics:l:Nic "},
    {"TemplateVersion", "", "base_template:o:Template version_name:s version_number:i "},
    {"InstanceType", "Template", " "},
    {"Host", "Identified", "address:s cluster:o:Cluster status:s "},
    {"DataCenter", "Identified",
     "local:b status:s storage_format:e:StorageFormat version:o:Version "
     "quota_mode:s "},
    {"Network", "Identified",
     "data_center:o:DataCenter cluster:o:Cluster vlan:o:Vlan mtu:i stp:b "
     "usages:l:String vnic_profiles:l:VnicProfile "},
    {"Vlan", "", "id:i "},
    {"HostStorage", "Identified",
     "address:s path:s type:s logical_units:l:LogicalUnit vfs_type:s "
     "mount_options:s nfs_version:s host:o:Host "},
    {"LogicalUnit", "",
     "id:s address:s port:i target:s lun_mapping:i size:i serial:s product_id:s "
     "vendor_id:s paths:i status:s username:s password:s portal:s "
     "discard_max_size:i discard_zeroes_data:b disk_id:s storage_domain_id:s "
     "volume_group_id:s order:i "},
    {"BootMenu", "", "enabled:b "},
    {"Domain", "Identified", "user:o:User "},
    {"User", "Identified",
     "user_name:s principal:s namespace:s domain:o:Domain password:s email:s "},
    {"Group", "Identified", "namespace:s domain:o:Domain "},
    {"CpuTune", "", "vcpu_pins:l:VcpuPin "},
    {"VcpuPin", "", "cpu_set:s vcpu:i "},
    {"Core", "", "index:i socket:i "},
    {"Icon", "Identified", "data:s media_type:s "},
    {"MemoryOverCommit", "", "percent:i "},
    {"TransparentHugePages", "", "enabled:b "},
    {"MigrationOptions", "",
     "auto_converge:s compressed:s encrypted:s bandwidth:o:MigrationBandwidth "
     "policy:o:MigrationPolicy custom_parallel_migrations:i@4.5 "
     "parallel_migrations_policy:s@4.5 "},
    {"MigrationBandwidth", "", "assignment_method:s custom_value:i "},
    {"MigrationPolicy", "Identified", " "},
    {"Sso", "", "methods:l:Method "},
    {"Method", "", "id:s "},
    {"Rate", "", "bytes:i period:i "},
    {"Payload", "", "files:l:File type:s volume_id:s "},
    {"File", "Identified", "content:s type:s storage_domain:o:StorageDomain "},
    {"NicConfiguration", "",
     "name:s boot_protocol:e:BootProtocol on_boot:b ip:o:Ip ipv6:o:Ip "
     "ipv6_boot_protocol:s "},
    {"Ip", "", "address:s gateway:s netmask:s version:s "},
    {"CloudInit", "", "host:o:Host users:l:User regenerate_ssh_keys:b timezone:s files:l:File "},
    {"GuestOperatingSystem", "",
     "architecture:s codename:s distribution:s family:s kernel:o:Kernel "
     "version:o:Version "},
    {"Kernel", "", "version:o:Version "},
    {"Quota", "Identified", "data_center:o:DataCenter "},
    {"DiskProfile", "Identified", "qos:o:Qos storage_domain:o:StorageDomain "},
    {"CpuProfile", "Identified", "qos:o:Qos cluster:o:Cluster "},
    {"Qos", "Identified", "data_center:o:DataCenter type:s "},
    {"Image", "Identified", "size:i type:s storage_domain:o:StorageDomain "},
    {"VnicPassThrough", "", "mode:s "},
    {"Certificate", "Identified", "content:s organization:s subject:s "},
    {"ExternalHostProvider", "Identified", "url:s "},
    {"Property", "", "name:s value:s "},
    {"VmPool", "Identified", " "},
    {"Permission", "Identified", "role:o:Identified user:o:User group:o:Group "},
    {"ReportedDevice", "Identified", "ips:l:Ip mac:o:Mac type:s vm:o:Vm "},
    {"Action", "Identified",
     "activate:b allow_partial_import:b async:b check_connectivity:b clone:b "
     "clone_permissions:b cluster:o:Cluster collapse_snapshots:b "
     "connectivity_timeout:i correlation_id:s data_center:o:DataCenter "
     "details:o:Identified directory:s discard_snapshots:b disk:o:Disk "
     "disk_profile:o:DiskProfile disks:l:Disk exclusive:b fault:o:Fault "
     "fence_type:s filename:s filter:b fix_layout:b force:b "
     "grace_period:o:GracePeriod host:o:Host image:s import_as_template:b "
     "is_attached:b job:o:Job lease:o:StorageDomainLease maintenance_enabled:b "
     "migrate_vms_in_affinity_closure:b option:o:Property pause:b "
     "permission:o:Permission quota:o:Quota reason:s reassign_bad_macs:b reboot:b "
     "restore_memory:b seal:b snapshot:o:Snapshot status:s "
     "storage_domain:o:StorageDomain storage_domains:l:StorageDomain succeeded:b "
     "template:o:Template timeout:i use_cloud_init:b use_ignition:b "
     "use_initialization:b use_sysprep:b vm:o:Vm volatile:b "},
    {"GracePeriod", "", "expiry:i "},
    {"Fault", "", "detail:s reason:s "},
    {"Vm", "VmBase",
     "affinity_labels:l:AffinityLabel applications:l:Application cdroms:l:Cdrom "
     "disk_attachments:l:DiskAttachment dynamic_cpu:o:DynamicCpu@4.5 "
     "external_host_provider:o:ExternalHostProvider floppies:l:Floppy fqdn:s "
     "graphics_consoles:l:GraphicsConsole "
     "guest_operating_system:o:GuestOperatingSystem guest_time_zone:o:TimeZone "
     "has_illegal_images:b host:o:Host host_devices:l:HostDevice "
     "instance_type:o:InstanceType katello_errata:l:KatelloErratum "
     "mediated_devices:l:VmMediatedDevice@4.5 next_run_configuration_exists:b "
     "nics:l:Nic numa_nodes:l:NumaNode numa_tune_mode:e:NumaTuneMode "
     "original_template:o:Template payloads:l:Payload permissions:l:Permission "
     "reported_devices:l:ReportedDevice run_once:b sessions:l:Session "
     "snapshots:l:Snapshot start_time:t statistics:l:Statistic status:e:VmStatus "
     "status_detail:s stop_reason:s stop_time:t tags:l:Tag template:o:Template "
     "use_latest_template_version:b vm_pool:o:VmPool watchdogs:l:Watchdog "},
    {"VmBase", "Identified",
     "auto_pinning_policy:e:AutoPinningPolicy@4.4.5 bios:o:Bios cluster:o:Cluster "
     "console:o:Console cpu:o:Cpu cpu_pinning_policy:e:CpuPinningPolicy@4.5 "
     "cpu_profile:o:CpuProfile cpu_shares:i creation_time:t "
     "custom_compatibility_version:o:Version custom_cpu_model:s "
     "custom_emulated_machine:s custom_properties:l:CustomProperty "
     "delete_protected:b display:o:Display domain:o:Domain "
     "high_availability:o:HighAvailability initialization:o:Initialization "
     "io:o:Io large_icon:o:Icon lease:o:StorageDomainLease memory:i "
     "memory_policy:o:MemoryPolicy migration:o:MigrationOptions "
     "migration_downtime:i multi_queues_enabled:b origin:s os:o:OperatingSystem "
     "placement_policy:o:VmPlacementPolicy quota:o:Quota rng_device:o:RngDevice "
     "serial_number:o:SerialNumber small_icon:o:Icon soundcard_enabled:b "
     "sso:o:Sso start_paused:b stateless:b storage_domain:o:StorageDomain "
     "storage_error_resume_behaviour:e:VmStorageErrorResumeBehaviour "
     "time_zone:o:TimeZone tpm_enabled:b@4.4 tunnel_migration:b type:e:VmType "
     "usb:o:Usb virtio_scsi:o:VirtioScsi virtio_scsi_multi_queues:i@4.5 "
     "virtio_scsi_multi_queues_enabled:b@4.4.5 "},
    {"Snapshot", "Vm",
     "date:t disks:l:Disk persist_memorystate:b snapshot_status:e:SnapshotStatus "
     "snapshot_type:e:SnapshotType vm:o:Vm "},
    {"DiskAttachment", "Identified",
     "active:b bootable:b disk:o:Disk interface:e:DiskInterface logical_name:s "
     "pass_discard:b read_only:b template:o:Template uses_scsi_reservation:b "
     "vm:o:Vm "},
    {"Disk", "Device",
     "active:b actual_size:i alias:s backup:e:DiskBackup@4.3 "
     "backup_mode:e:DiskBackupMode@4.4.3 bootable:b "
     "content_type:e:DiskContentType disk_profile:o:DiskProfile "
     "disk_snapshots:l:DiskSnapshot external_disk:s@4.4.10 format:e:DiskFormat "
     "image_id:s@4.2 initial_size:i interface:e:DiskInterface logical_name:s "
     "lun_storage:o:HostStorage openstack_volume_type:o:OpenStackVolumeType "
     "permissions:l:Permission propagate_errors:b provisioned_size:i "
     "qcow_version:e:QcowVersion quota:o:Quota read_only:b sgio:e:ScsiGenericIO "
     "shareable:b snapshot:o:Snapshot sparse:b statistics:l:Statistic "
     "status:e:DiskStatus storage_domain:o:StorageDomain "
     "storage_domains:l:StorageDomain storage_type:e:DiskStorageType "
     "total_size:i@4.2 uses_scsi_reservation:b wipe_after_delete:b "},
    {"DiskSnapshot", "Disk", "disk:o:Disk parent:o:DiskSnapshot "},
    {"Nic", "Device",
     "boot_protocol:e:BootProtocol interface:e:NicInterface linked:b mac:o:Mac "
     "network:o:Network network_attachments:l:NetworkAttachment "
     "network_filter_parameters:l:NetworkFilterParameter "
     "network_labels:l:NetworkLabel on_boot:b plugged:b "
     "reported_devices:l:ReportedDevice statistics:l:Statistic synced:b "
     "virtual_function_allowed_labels:l:NetworkLabel "
     "virtual_function_allowed_networks:l:Network vnic_profile:o:VnicProfile "},
    {"Backup", "Identified",
     "creation_date:t disks:l:Disk from_checkpoint_id:s host:o:Host@4.4.4 "
     "modification_date:t@4.4.8 phase:e:BackupPhase snapshot:o:Snapshot@4.5 "
     "to_checkpoint_id:s vm:o:Vm "},
    {"Checkpoint", "Identified",
     "creation_date:t disks:l:Disk parent_id:s state:e:CheckpointState@4.4.7 "
     "vm:o:Vm "},
    {"ImageTransfer", "Identified",
     "active:b backup:o:Backup@4.3 direction:e:ImageTransferDirection disk:o:Disk "
     "format:e:DiskFormat@4.3 host:o:Host image:o:Image inactivity_timeout:i "
     "phase:e:ImageTransferPhase proxy_url:s shallow:b@4.4.3 "
     "snapshot:o:DiskSnapshot timeout_policy:e:ImageTransferTimeoutPolicy@4.4.5 "
     "transfer_url:s transferred:i "},
    {"Job", "Identified",
     "auto_cleared:b end_time:t external:b last_updated:t owner:o:User "
     "start_time:t status:e:JobStatus steps:l:Step "},
    {"Step", "Identified",
     "end_time:t execution_host:o:Host external:b "
     "external_type:e:ExternalSystemType job:o:Job number:i parent_step:o:Step "
     "progress:i start_time:t statistics:l:Statistic status:e:StepStatus "
     "type:e:StepEnum "},
    {"Event", "Identified",
     "cluster:o:Cluster code:i correlation_id:s custom_data:s custom_id:i "
     "data_center:o:DataCenter flood_rate:i host:o:Host index:i log_on_host:b "
     "origin:s severity:e:LogSeverity storage_domain:o:StorageDomain "
     "template:o:Template time:t user:o:User vm:o:Vm "},
    {"StorageDomain", "Identified",
     "available:i backup:b block_size:i committed:i "
     "critical_space_action_blocker:i data_center:o:DataCenter "
     "data_centers:l:DataCenter discard_after_delete:b "
     "disk_profiles:l:DiskProfile disk_snapshots:l:DiskSnapshot disks:l:Disk "
     "external_status:e:ExternalStatus files:l:File host:o:Host images:l:Image "
     "import:b master:b permissions:l:Permission status:e:StorageDomainStatus "
     "storage:o:HostStorage storage_connections:l:StorageConnection "
     "storage_format:e:StorageFormat supports_discard:b "
     "supports_discard_zeroes_data:b templates:l:Template "
     "type:e:StorageDomainType used:i vms:l:Vm warning_low_space_indicator:i "
     "wipe_after_delete:b "},
    {"Cluster", "Identified",
     "affinity_groups:l:AffinityGroup ballooning_enabled:b "
     "bios_type:e:BiosType@4.4 cpu:o:Cpu cpu_profiles:l:CpuProfile "
     "custom_scheduling_policy_properties:l:Property data_center:o:DataCenter "
     "display:o:Display enabled_features:l:ClusterFeature "
     "error_handling:o:ErrorHandling "
     "external_network_providers:l:ExternalProvider "
     "fencing_policy:o:FencingPolicy fips_mode:e:FipsMode@4.4 "
     "firewall_type:e:FirewallType gluster_hooks:l:GlusterHook gluster_service:b "
     "gluster_tuned_profile:s gluster_volumes:l:GlusterVolume ha_reservation:b "
     "ksm:o:Ksm log_max_memory_used_threshold:i "
     "log_max_memory_used_threshold_type:e:LogMaxMemoryUsedThresholdType "
     "mac_pool:o:MacPool maintenance_reason_required:b "
     "management_network:o:Network memory_policy:o:MemoryPolicy "
     "migration:o:MigrationOptions network_filters:l:NetworkFilter "
     "networks:l:Network optional_reason:b permissions:l:Permission "
     "required_rng_sources:l:RngSource scheduling_policy:o:SchedulingPolicy "
     "serial_number:o:SerialNumber supported_versions:l:Version "
     "switch_type:e:SwitchType threads_as_cores:b trusted_service:b "
     "tunnel_migration:b upgrade_correlation_id:s@4.5 "
     "upgrade_in_progress:b@4.4.10 upgrade_percent_complete:i@4.5 "
     "version:o:Version virt_service:b vnc_encryption:b@4.4 "},
    {"Tag", "Identified",
     "group:o:Group host:o:Host parent:o:Tag template:o:Template user:o:User "
     "vm:o:Vm "},
    {"VnicProfile", "Identified",
     "custom_properties:l:CustomProperty failover:o:VnicProfile@4.4 migratable:b "
     "network:o:Network network_filter:o:NetworkFilter "
     "pass_through:o:VnicPassThrough permissions:l:Permission port_mirroring:b "
     "qos:o:Qos "},
    {"Initialization", "",
     "active_directory_ou:s authorized_ssh_keys:s cloud_init:o:CloudInit "
     "cloud_init_network_protocol:e:CloudInitNetworkProtocol "
     "configuration:o:Configuration custom_script:s dns_search:s dns_servers:s "
     "domain:s host_name:s input_locale:s nic_configurations:l:NicConfiguration "
     "org_name:s regenerate_ids:b regenerate_ssh_keys:b root_password:s "
     "system_locale:s timezone:s ui_language:s user_locale:s user_name:s "
     "windows_license_key:s "},
    {"Configuration", "", "data:s type:e:ConfigurationType "},
    {"Cpu", "",
     "architecture:e:Architecture cores:l:Core cpu_tune:o:CpuTune level:i "
     "mode:e:CpuMode name:s speed:n topology:o:CpuTopology type:s "},
    {"CpuTopology", "", "cores:i sockets:i threads:i "},
    {"MemoryPolicy", "",
     "ballooning:b guaranteed:i max:i over_commit:o:MemoryOverCommit "
     "transparent_huge_pages:o:TransparentHugePages "},
    {"Bios", "", "boot_menu:o:BootMenu type:e:BiosType "},
    {"OperatingSystem", "",
     "boot:o:Boot cmdline:s custom_kernel_cmdline:s description:s initrd:s "
     "kernel:s reported_kernel_cmdline:s@4.4.3 type:s version:o:Version "},
    {"Boot", "", "devices:l:BootDevice "},
    {"Display", "",
     "address:s allow_override:b certificate:o:Certificate copy_paste_enabled:b "
     "disconnect_action:s disconnect_action_delay:i file_transfer_enabled:b "
     "keyboard_layout:s monitors:i port:i proxy:s secure_port:i single_qxl_pci:b "
     "smartcard_enabled:b type:e:DisplayType video_type:e:VideoType "},
    {"HighAvailability", "", "enabled:b priority:i "},
    {"VmPlacementPolicy", "", "affinity:e:VmAffinity hosts:l:Host "},
    {"StorageDomainLease", "", "storage_domain:o:StorageDomain "},
    {"RngDevice", "", "rate:o:Rate source:e:RngSource "},
    {"SerialNumber", "", "policy:e:SerialNumberPolicy value:s "},
    {"Io", "", "threads:i "},
    {"Usb", "", "enabled:b type:e:UsbType "},
    {"TimeZone", "", "name:s utc_offset:s "},
    {"CustomProperty", "", "name:s regexp:s value:s "},
    {"VirtioScsi", "", "enabled:b "},
    {"Console", "", "enabled:b "},
    {"Watchdog", "Device", "action:e:WatchdogAction model:e:WatchdogModel "},
    {"Cdrom", "Device", "file:o:File "},
    {"GraphicsConsole", "Identified",
     "address:s instance_type:o:InstanceType port:i protocol:e:GraphicsType "
     "template:o:Template tls_port:i vm:o:Vm "},
    {"ProductInfo", "", "instance_id:s name:s vendor:s version:o:Version "},
    {"Version", "Identified", "build:i full_version:s major:i minor:i revision:i "},
    {"Mac", "", "address:s "},
    {0},
};

const struct member_enum_row member_enum_rows[] = {
    {"Architecture", "undefined x86_64 ppc64 s390x aarch64 loongarch64 "},
    {"AutoPinningPolicy", "disabled existing adjust "},
    {"BackupPhase", "initializing starting ready finalizing succeeded failed "},
    {"BiosType", "cluster_default i440fx_sea_bios q35_sea_bios q35_ovmf q35_secure_boot "},
    {"BootProtocol", "autoconf dhcp poly_dhcp_autoconf static none "},
    {"CheckpointState", "created invalid "},
    {"CloudInitNetworkProtocol", "eni openstack_metadata "},
    {"ConfigurationType", "ovf ova "},
    {"CpuMode", "custom host_model host_passthrough "},
    {"CpuPinningPolicy", "none manual resize_and_pin_numa dedicated isolate_threads "},
    {"DiskBackup", "none incremental "},
    {"DiskBackupMode", "full incremental "},
    {"DiskContentType",
     "data ovf_store memory_dump_volume memory_metadata_volume iso hosted_engine "
     "hosted_engine_sanlock hosted_engine_metadata hosted_engine_configuration "
     "backup_scratch "},
    {"DiskFormat", "cow raw "},
    {"DiskInterface", "ide virtio_scsi virtio spapr_vscsi sata "},
    {"DiskStatus", "illegal locked ok "},
    {"DiskStorageType", "image lun cinder managed_block_storage "},
    {"DisplayType", "vnc spice "},
    {"ExternalStatus", "error failure info ok warning "},
    {"ExternalSystemType", "vdsm gluster "},
    {"FipsMode", "undefined disabled enabled "},
    {"FirewallType", "iptables firewalld "},
    {"GraphicsType", "spice vnc "},
    {"ImageTransferDirection", "upload download "},
    {"ImageTransferPhase", "unknown initializing transferring resuming paused_system paused_user "
                           "cancelled finalizing_success finalizing_failure finished_success "
                           "finished_failure cancelled_system cancelled_user finalizing_cleanup "
                           "finished_cleanup "},
    {"ImageTransferTimeoutPolicy", "legacy pause cancel "},
    {"JobStatus", "aborted failed finished started unknown "},
    {"LogMaxMemoryUsedThresholdType", "percentage absolute_value_in_mb "},
    {"LogSeverity", "normal warning error alert "},
    {"NicInterface", "e1000 e1000e virtio rtl8139 rtl8139_virtio spapr_vlan pci_passthrough "},
    {"NumaTuneMode", "strict interleave preferred "},
    {"QcowVersion", "qcow2_v2 qcow2_v3 "},
    {"RngSource", "random urandom hwrng "},
    {"ScsiGenericIO", "filtered unfiltered disabled "},
    {"SerialNumberPolicy", "host vm custom none "},
    {"SnapshotStatus", "ok locked in_preview "},
    {"SnapshotType", "regular active stateless preview "},
    {"StepEnum", "validating executing finalizing rebalancing_volume removing_bricks unknown "},
    {"StepStatus", "aborted failed finished started unknown "},
    {"StorageDomainStatus", "active inactive locked mixed unattached maintenance "
                            "preparing_for_maintenance detaching activating unknown "},
    {"StorageDomainType", "data iso export image volume managed_block_storage "},
    {"StorageFormat", "v1 v2 v3 v4 v5 "},
    {"SwitchType", "legacy ovs "},
    {"UsbType", "legacy native "},
    {"VideoType", "bochs cirrus vga qxl "},
    {"VmAffinity", "migratable user_migratable pinned "},
    {"VmStatus", "unassigned down up powering_up paused migrating unknown not_responding "
                 "wait_for_launch reboot_in_progress saving_state restoring_state suspended "
                 "image_locked powering_down "},
    {"VmStorageErrorResumeBehaviour", "leave_paused auto_resume kill "},
    {"VmType", "desktop server high_performance "},
    {"WatchdogAction", "none reset poweroff pause dump "},
    {"WatchdogModel", "i6300esb diag288 "},
    {"BootDevice", "cdrom hd network "},
    {0},
};
