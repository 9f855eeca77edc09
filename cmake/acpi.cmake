# The DSDT: src/machine/acpi/dsdt.asl by iasl to AML, and the AML to a header `dsdt_aml.hpp` of room machine.
find_program(IASL iasl)
if(NOT IASL)
  message(FATAL_ERROR "iasl is missing, which compiles the ACPI tables: install the package acpica-tools (tools/setup does).")
endif()

set(acpi_source ${CMAKE_SOURCE_DIR}/src/machine/acpi/dsdt.asl)
set(acpi_dir ${CMAKE_BINARY_DIR}/generated/acpi)
file(MAKE_DIRECTORY ${acpi_dir})
add_custom_command(
  OUTPUT ${acpi_dir}/dsdt_aml.hpp
  COMMAND ${IASL} -vs -we -p ${acpi_dir}/dsdt ${acpi_source}
  COMMAND ${CMAKE_COMMAND} -DAML=${acpi_dir}/dsdt.aml -DHEADER=${acpi_dir}/dsdt_aml.hpp -P ${CMAKE_SOURCE_DIR}/cmake/aml_to_header.cmake
  DEPENDS ${acpi_source} ${CMAKE_SOURCE_DIR}/cmake/aml_to_header.cmake
  COMMENT "Compiling the DSDT"
  VERBATIM)
target_sources(machine PRIVATE ${acpi_dir}/dsdt_aml.hpp)
target_include_directories(machine PRIVATE ${acpi_dir})
