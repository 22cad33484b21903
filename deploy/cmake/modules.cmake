# SPDX-License-Identifier: Apache-2.0

# oxbow_module(NAME SOURCES a.c b.c [DEPS targets...] [PRIVATE_DEPS targets...])
#
# One static library per module folder. DEPS are what its headers need, PRIVATE_DEPS what its .c
# files need. Which folder may include which is held by tests/lint/arrows.
function(oxbow_module name)
  cmake_parse_arguments(M "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${M_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${M_DEPS} PRIVATE oxbow_flags ${M_PRIVATE_DEPS})
endfunction()

# oxbow_program(NAME SOURCES main.c DEPS modules... [DESTINATION dir COMPONENT component]): an
# installed executable. COMPONENT is its package: coordinator, worker or ctl.
function(oxbow_program name)
  cmake_parse_arguments(P "" "DESTINATION;COMPONENT" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${P_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE oxbow_flags ${P_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  if(NOT P_COMPONENT)
    set(P_COMPONENT Unspecified)
  endif()
  if(P_DESTINATION)
    install(TARGETS ${name} DESTINATION ${P_DESTINATION} COMPONENT ${P_COMPONENT})
  endif()
endfunction()

# oxbow_unit_test(NAME SOURCES test_x.c DEPS modules... [WRAP symbols...]): one cmocka program, one
# CTest entry with the label "unit". WRAP adds -Wl,--wrap for each symbol.
function(oxbow_unit_test name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPS;WRAP" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE oxbow_flags ${T_DEPS} temp_dir PkgConfig::cmocka)
  foreach(symbol ${T_WRAP})
    target_link_options(${name} PRIVATE -Wl,--wrap=${symbol})
  endforeach()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/unit)
  add_test(NAME unit.${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(unit.${name} PROPERTIES LABELS unit TIMEOUT 900 SKIP_RETURN_CODE 77
    ENVIRONMENT "OXBOW_SOURCE_DIR=${CMAKE_SOURCE_DIR};OXBOW_BINARY_DIR=${CMAKE_BINARY_DIR}")
endfunction()

# oxbow_script_test(NAME COMMAND script LABELS l... [TIMEOUT s]): a shell or Python test that runs
# the real programs. Exit 77 is a skip, which the ci preset turns into a failure (NO_SKIP=1).
function(oxbow_script_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 900) # a loaded machine is ten times slower
  endif()
  add_test(NAME ${name} COMMAND ${T_COMMAND} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT}
    SKIP_RETURN_CODE 77
    ENVIRONMENT "OXBOW_SOURCE_DIR=${CMAKE_SOURCE_DIR};OXBOW_BINARY_DIR=${CMAKE_BINARY_DIR}")
endfunction()
