# SPDX-License-Identifier: Apache-2.0
# Interface targets that every module links privately: warnings, hardening, sanitizers.

add_library(oxbow_flags INTERFACE)
target_compile_definitions(oxbow_flags INTERFACE _GNU_SOURCE OXBOW_VERSION="${PROJECT_VERSION}")
target_compile_options(oxbow_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes
  -Wcast-qual -Wpointer-arith -Wvla -Wwrite-strings -Wundef -Wdouble-promotion
  -Wimplicit-fallthrough -Wswitch-enum
  # "at" in an error names the file as a reader of the repository knows it.
  -ffile-prefix-map=${CMAKE_SOURCE_DIR}/= -fno-common)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(oxbow_flags INTERFACE
    -Wduplicated-cond -Wduplicated-branches -Wlogical-op)
  if(NOT OXBOW_SANITIZE AND NOT OXBOW_ANALYZER)
    # Sanitizers and -O0 make this warning guess wrongly.
    target_compile_options(oxbow_flags INTERFACE -Wnull-dereference)
  endif()
endif()
if(OXBOW_WERROR)
  target_compile_options(oxbow_flags INTERFACE -Werror)
endif()
if(OXBOW_ANALYZER)
  # gcc 12 takes a small memcpy() that it has folded into one assignment for a use of uninitialized
  # bytes: let it stay a call.
  target_compile_options(oxbow_flags INTERFACE -fanalyzer -fno-builtin-memcpy)
endif()
if(OXBOW_SANITIZE)
  target_compile_options(oxbow_flags INTERFACE
    -fsanitize=${OXBOW_SANITIZE} -fno-omit-frame-pointer -O1)
  target_link_options(oxbow_flags INTERFACE -fsanitize=${OXBOW_SANITIZE})
  if(OXBOW_SANITIZE MATCHES "undefined")
    target_compile_options(oxbow_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
else()
  target_compile_options(oxbow_flags INTERFACE
    -fstack-protector-strong -fstack-clash-protection
    $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=3>)
endif()
if(OXBOW_FUZZ)
  # Coverage feedback from all modules, not just from the fuzz target.
  target_compile_options(oxbow_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(OXBOW_COVERAGE)
  target_compile_options(oxbow_flags INTERFACE --coverage)
  target_link_options(oxbow_flags INTERFACE --coverage)
endif()
target_link_options(oxbow_flags INTERFACE -Wl,-z,relro,-z,now)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Assertions are how a bug in us stops a worker before it harms a backup: they stay on in Release.
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
