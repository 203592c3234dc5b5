//! Attributes that answers and questions name (PS3.6): number and keyword of each.

use super::json::Tag;

macro_rules! attributes {
    ($($name:ident $tag:literal $keyword:literal;)+) => {
        $(pub const $name: Tag = Tag($tag);)+

        /// The keyword of an attribute; none for one that is not listed here.
        pub fn keyword(tag: Tag) -> Option<&'static str> {
            match tag {
                $($name => Some($keyword),)+
                _ => None,
            }
        }
    };
}

attributes! {
    SPECIFIC_CHARACTER_SET 0x0008_0005 "SpecificCharacterSet";
    IMAGE_TYPE 0x0008_0008 "ImageType";
    SOP_CLASS_UID 0x0008_0016 "SOPClassUID";
    SOP_INSTANCE_UID 0x0008_0018 "SOPInstanceUID";
    STUDY_DATE 0x0008_0020 "StudyDate";
    STUDY_TIME 0x0008_0030 "StudyTime";
    ACCESSION_NUMBER 0x0008_0050 "AccessionNumber";
    INSTANCE_AVAILABILITY 0x0008_0056 "InstanceAvailability";
    MODALITY 0x0008_0060 "Modality";
    MODALITIES_IN_STUDY 0x0008_0061 "ModalitiesInStudy";
    CONVERSION_TYPE 0x0008_0064 "ConversionType";
    REFERRING_PHYSICIAN_NAME 0x0008_0090 "ReferringPhysicianName";
    CODE_VALUE 0x0008_0100 "CodeValue";
    CODING_SCHEME 0x0008_0102 "CodingSchemeDesignator";
    CODE_MEANING 0x0008_0104 "CodeMeaning";
    REFERENCED_SOP_CLASS_UID 0x0008_1150 "ReferencedSOPClassUID";
    REFERENCED_SOP_INSTANCE_UID 0x0008_1155 "ReferencedSOPInstanceUID";
    REFERENCED_FRAME_NUMBER 0x0008_1160 "ReferencedFrameNumber";
    RETRIEVE_URL 0x0008_1190 "RetrieveURL";
    WARNING_REASON 0x0008_1196 "WarningReason";
    FAILURE_REASON 0x0008_1197 "FailureReason";
    FAILED_SOP_SEQUENCE 0x0008_1198 "FailedSOPSequence";
    REFERENCED_SOP_SEQUENCE 0x0008_1199 "ReferencedSOPSequence";
    OTHER_FAILURES_SEQUENCE 0x0008_119A "OtherFailuresSequence";
    SOURCE_IMAGE_SEQUENCE 0x0008_2112 "SourceImageSequence";
    PATIENT_NAME 0x0010_0010 "PatientName";
    PATIENT_ID 0x0010_0020 "PatientID";
    ISSUER_OF_PATIENT_ID 0x0010_0021 "IssuerOfPatientID";
    PATIENT_BIRTH_DATE 0x0010_0030 "PatientBirthDate";
    PATIENT_SEX 0x0010_0040 "PatientSex";
    PATIENT_AGE 0x0010_1010 "PatientAge";
    PATIENT_IDENTITY_REMOVED 0x0012_0062 "PatientIdentityRemoved";
    DEIDENTIFICATION_METHOD 0x0012_0063 "DeidentificationMethod";
    DEIDENTIFICATION_CODES 0x0012_0064 "DeidentificationMethodCodeSequence";
    BODY_PART_EXAMINED 0x0018_0015 "BodyPartExamined";
    VIEW_POSITION 0x0018_5101 "ViewPosition";
    STUDY_INSTANCE_UID 0x0020_000D "StudyInstanceUID";
    SERIES_INSTANCE_UID 0x0020_000E "SeriesInstanceUID";
    STUDY_ID 0x0020_0010 "StudyID";
    SERIES_NUMBER 0x0020_0011 "SeriesNumber";
    INSTANCE_NUMBER 0x0020_0013 "InstanceNumber";
    STUDY_RELATED_SERIES 0x0020_1206 "NumberOfStudyRelatedSeries";
    STUDY_RELATED_INSTANCES 0x0020_1208 "NumberOfStudyRelatedInstances";
    SERIES_RELATED_INSTANCES 0x0020_1209 "NumberOfSeriesRelatedInstances";
    SAMPLES_PER_PIXEL 0x0028_0002 "SamplesPerPixel";
    PHOTOMETRIC_INTERPRETATION 0x0028_0004 "PhotometricInterpretation";
    PLANAR_CONFIGURATION 0x0028_0006 "PlanarConfiguration";
    NUMBER_OF_FRAMES 0x0028_0008 "NumberOfFrames";
    ROWS 0x0028_0010 "Rows";
    COLUMNS 0x0028_0011 "Columns";
    BITS_ALLOCATED 0x0028_0100 "BitsAllocated";
    BITS_STORED 0x0028_0101 "BitsStored";
    HIGH_BIT 0x0028_0102 "HighBit";
    PIXEL_REPRESENTATION 0x0028_0103 "PixelRepresentation";
    BURNED_IN_ANNOTATION 0x0028_0301 "BurnedInAnnotation";
    WINDOW_CENTER 0x0028_1050 "WindowCenter";
    WINDOW_WIDTH 0x0028_1051 "WindowWidth";
    VOI_LUT_FUNCTION 0x0028_1056 "VOILUTFunction";
    PIXEL_DATA 0x7FE0_0010 "PixelData";
}
