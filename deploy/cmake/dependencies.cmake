# SPDX-License-Identifier: Apache-2.0
# Every library we use, all from the distribution's packages. README says why each is here.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(rabbitmq REQUIRED IMPORTED_TARGET librabbitmq>=0.11)
pkg_check_modules(curl     REQUIRED IMPORTED_TARGET libcurl>=7.74)
pkg_check_modules(jansson  REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(uuid     REQUIRED IMPORTED_TARGET uuid)
pkg_check_modules(cyaml    REQUIRED IMPORTED_TARGET libcyaml>=1.3)
pkg_check_modules(sqlite   REQUIRED IMPORTED_TARGET sqlite3>=3.34)
pkg_check_modules(zstd     REQUIRED IMPORTED_TARGET libzstd>=1.4)
pkg_check_modules(crypto   REQUIRED IMPORTED_TARGET libcrypto>=3.0)
pkg_check_modules(isal     REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(systemd  REQUIRED IMPORTED_TARGET libsystemd)
pkg_check_modules(xml2     REQUIRED IMPORTED_TARGET libxml-2.0)
# Tests and the sandbox only.
pkg_check_modules(cmocka   REQUIRED IMPORTED_TARGET cmocka>=1.1.5)
pkg_check_modules(mhd      REQUIRED IMPORTED_TARGET libmicrohttpd>=0.9.70)
pkg_check_modules(nbd      REQUIRED IMPORTED_TARGET libnbd>=1.10)
